//! The part of the configuration that names providers: which accounts there are, and which models the owner adds or prices anew.
//!
//! A secret is never here: only the place where it lies. What is read here is checked against the catalogue, so that a misspelled
//! model is found before anybody asks for it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use api_proxy::{BaseUrl, Catalogue, Channel, InvalidPrice, ModelOverride, ModelPrices, Name, Price, ProviderKind};

use super::document::{At, Section};

/// Channels at most: each has connections and a breaker of its own.
const MOST_CHANNELS: usize = 256;
/// Own models at most.
const MOST_MODELS: usize = 4096;

/// Every provider that this Lab may ask.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    /// The accounts.
    pub channels: Vec<PlannedChannel>,
    /// What the owner lays over the catalogue.
    pub models: Vec<ModelOverride>,
    /// Certificates to trust beside the system's, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// An account at a provider, whose secret has not been fetched yet.
#[derive(Debug, Clone)]
pub struct PlannedChannel {
    /// All but the secret.
    pub channel: Channel,
    /// Where that lies; `None` for a server that asks for none.
    pub secret: Option<SecretSource>,
}

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In an environment variable of this name.
    Env(String),
    /// In a file that only its owner can read.
    File(PathBuf),
    /// In the system's keyring, as this account of the service `1k4-lab`.
    Keyring(String),
}

/// The kinds as they are written, with the address that each has unless its channel says otherwise.
const KINDS: [(&str, ProviderKind); 7] = [
    ("openai", ProviderKind::Openai),
    ("anthropic", ProviderKind::Anthropic),
    ("gemini", ProviderKind::Gemini),
    ("xai", ProviderKind::Xai),
    ("azure", ProviderKind::Azure),
    ("azure-deployments", ProviderKind::AzureDeployments),
    ("openai-compatible", ProviderKind::OpenaiCompatible),
];

/// Reads `[[providers]]`, `[[models]]` and `[upstream]` out of the file. Paths are relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> Providers {
    let mut providers = Providers::default();
    let mut names = Names::default();
    for section in root.tables("providers") {
        provider(section, base, &mut names, &mut providers.channels);
    }
    let catalogue = Catalogue::embedded().ok();
    for section in root.tables("models") {
        let is_known = |id: &str| catalogue.as_ref().is_some_and(|catalogue| catalogue.find(id).is_some());
        providers.models.extend(model(section, &mut names, is_known));
    }
    if let Some(mut upstream) = root.table("upstream") {
        providers.ca_file = upstream.text("ca_file").map(|file| base.join(file.value));
        upstream.finish();
    }
    if providers.channels.len() > MOST_CHANNELS || providers.models.len() > MOST_MODELS {
        root.wrong::<()>(1, format_args!("there may be at most {MOST_CHANNELS} channels and {MOST_MODELS} models"));
    }
    if let Some(catalogue) = &catalogue {
        names.check(root, catalogue);
        // Names that meet, and whatever else only the whole list shows.
        match catalogue.clone().with_overrides(&providers.models) {
            Ok(catalogue) => providers.channels.iter_mut().for_each(|planned| name_by_id(&mut planned.channel, &catalogue)),
            Err(error) => {
                let line = names.models.get(&error.entry).map_or(1, |(line, _)| *line);
                root.wrong::<()>(line, format_args!("the model {}: {}", error.entry, error.problem));
            }
        }
    }
    providers
}

/// Calls the models of a channel by their ids, by which it is chosen: the owner may have written any of their names. A deployment
/// under the id itself goes before one under another name.
fn name_by_id(channel: &mut Channel, catalogue: &Catalogue) {
    let id = |name: &str| catalogue.find(name).map_or_else(|| name.to_owned(), |model| (*model.id).to_owned());
    for name in channel.models.iter_mut().flatten() {
        *name = id(name);
    }
    let mut deployments: Vec<_> = channel.deployments.drain().map(|(name, deployment)| (id(&name), name, deployment)).collect();
    deployments.sort_by_key(|(id, name, _)| (id == name, name.clone()));
    channel.deployments.extend(deployments.into_iter().map(|(id, _, deployment)| (id, deployment)));
}

/// The names that were given, with the lines to point at.
#[derive(Default)]
struct Names {
    providers: HashMap<Name, usize>,
    channels: HashSet<Name>,
    /// What channels say that they serve: the line, the provider, the model.
    served: Vec<(usize, Name, String)>,
    models: HashMap<String, (usize, Name)>,
}

impl Names {
    /// What can only be said once everything is read: whether the names meet.
    fn check(&self, root: &Section<'_, '_>, catalogue: &Catalogue) {
        for (line, provider, model) in &self.served {
            let whose =
                self.models.get(model).map(|(_, whose)| whose).or_else(|| catalogue.find(model).map(|model| &model.provider));
            match whose {
                Some(whose) if whose == provider => {}
                Some(whose) => {
                    root.wrong::<()>(*line, format_args!("the model {model} is {whose}'s, and this channel is {provider}'s"));
                }
                None => {
                    root.wrong::<()>(
                        *line,
                        format_args!("neither the catalogue nor [[models]] has the model {model}; check its spelling or add it"),
                    );
                }
            }
        }
        for (provider, line) in &self.providers {
            let has_own = self.models.values().any(|(_, whose)| whose == provider);
            if !has_own && !catalogue.models().any(|model| model.provider == *provider) {
                root.wrong::<()>(
                    *line,
                    format_args!("the catalogue has no models of {provider}; add [[models]] with provider = \"{provider}\""),
                );
            }
        }
        for (model, (line, provider)) in &self.models {
            if !self.providers.contains_key(provider) {
                root.wrong::<()>(*line, format_args!("the model {model} is {provider}'s, which no [[providers]] names"));
            }
        }
    }
}

/// One of `[[providers]]`, with its channels.
fn provider(mut section: Section<'_, '_>, base: &Path, names: &mut Names, channels: &mut Vec<PlannedChannel>) {
    section.need("name");
    let name = section.parse::<Name>("name");
    let kind = section.word("kind", &KINDS).map(|kind| kind.value);
    if !section.has("channels") {
        section.wrong::<()>(section.line, "providers needs [[providers.channels]]: the accounts through which it is asked");
    }
    let sections = section.tables("channels");
    if let Some(At { line, value: name }) = &name
        && names.providers.insert(name.clone(), *line).is_some()
    {
        section.wrong::<()>(*line, format_args!("the provider {name} stands here a second time; put its channels under one"));
    }
    section.finish();
    let name = name.map(|name| name.value);
    let kind = kind.or_else(|| name.as_ref().map(usual_kind));
    for section in sections {
        channels.extend(channel(section, base, name.as_ref(), kind, names));
    }
}

/// One of `[[providers.channels]]`; `None` when something is wrong with it.
fn channel(
    mut section: Section<'_, '_>,
    base: &Path,
    provider: Option<&Name>,
    kind: Option<ProviderKind>,
    names: &mut Names,
) -> Option<PlannedChannel> {
    section.need("name");
    let name = section.parse::<Name>("name");
    // One provider's models may also be had from Azure: the catalogue's name stays, the shape differs.
    let kind = section.word("kind", &KINDS).map(|kind| kind.value).or(kind);
    let url = url(&mut section, "channels", kind);
    let secret = secret(&mut section, base, "channels", kind);
    let priority = section.number("priority", 0..=u64::from(u16::MAX)).map_or(0, |number| number.value);
    let weight = section.number("weight", 1..=1000).map_or(1, |number| number.value);
    let models = section.texts("models");
    let deployments = section.pairs("deployments");
    let version_line = section.line;
    let api_version = section.text("api_version");

    if let Some(At { line, value: name }) = &name
        && !names.channels.insert(name.clone())
    {
        section.wrong::<()>(*line, format_args!("there is another channel {name}; each needs a name of its own"));
    }
    let is_azure = matches!(kind, Some(ProviderKind::Azure | ProviderKind::AzureDeployments));
    if let Some(deployments) = &deployments
        && kind.is_some()
        && !is_azure
    {
        section.wrong::<()>(deployments.line, "deployments are Azure's: kind must be azure or azure-deployments");
    }
    if kind == Some(ProviderKind::AzureDeployments) && deployments.is_none() {
        section.wrong::<()>(version_line, "channels needs deployments, such as { \"gpt-5.5\" = \"my-deployment\" }");
    }
    if let Some(version) = &api_version {
        if kind.is_some_and(|kind| kind != ProviderKind::AzureDeployments) {
            section.wrong::<()>(version.line, "api_version belongs to the kind azure-deployments only");
        } else if !is_version(&version.value) {
            section.wrong::<()>(version.line, "api_version must be a date such as 2024-10-21, with -preview behind it if need be");
        }
    }
    if let Some(provider) = provider {
        let served = models.iter().flat_map(|models| &models.value);
        let deployed = deployments.iter().flat_map(|pairs| &pairs.value).map(|(model, _)| model);
        names.served.extend(served.chain(deployed).map(|model| (model.line, provider.clone(), model.value.clone())));
    }
    section.finish();

    let kind = kind?;
    let channel = Channel {
        name: name?.value,
        provider: provider?.clone(),
        kind,
        base: url?,
        secret: None,
        priority: u16::try_from(priority).ok()?,
        weight: u16::try_from(weight).ok()?,
        models: models.map(|models| models.value.into_iter().map(|model| model.value).collect()),
        deployments: deployments
            .map(|pairs| pairs.value.into_iter().map(|(model, deployment)| (model.value, deployment)).collect())
            .unwrap_or_default(),
        api_version: api_version.map(|version| version.value),
    };
    Some(PlannedChannel { channel, secret: secret? })
}

/// The kind that a section of another part of the file names.
pub(super) fn kind(section: &mut Section<'_, '_>) -> Option<ProviderKind> {
    section.word("kind", &KINDS).map(|kind| kind.value)
}

/// Where the channel is: as it says, or where its kind is.
pub(super) fn url(section: &mut Section<'_, '_>, whose: &'static str, kind: Option<ProviderKind>) -> Option<BaseUrl> {
    let has = section.has("base_url");
    let said = section.parse::<BaseUrl>("base_url").map(|url| url.value);
    if has {
        return said;
    }
    let usual = kind?.usual_base();
    if usual.is_none() {
        section.wrong::<()>(section.line, format_args!("{whose} needs base_url: this kind of provider has no address of its own"));
    }
    usual
}

/// Where the secret lies. The outer `None` is a mistake, the inner a server that asks for none.
#[expect(clippy::option_option, reason = "the two say different things, and both end here")]
pub(super) fn secret(
    section: &mut Section<'_, '_>,
    base: &Path,
    whose: &'static str,
    kind: Option<ProviderKind>,
) -> Option<Option<SecretSource>> {
    if kind == Some(ProviderKind::OpenaiCompatible) && !section.has("secret") {
        // Asked for all the same, so that it is known as a setting.
        section.table("secret");
        return Some(None);
    }
    secret_source(section, base, "secret", whose).map(Some)
}

/// Where a secret lies that `whose` section must name as `key`.
pub(super) fn secret_source(
    section: &mut Section<'_, '_>,
    base: &Path,
    key: &'static str,
    whose: &'static str,
) -> Option<SecretSource> {
    let mut source = match section.table_or_other(key) {
        Some(Ok(source)) => source,
        Some(Err(line)) => {
            return section.wrong(
                line,
                "a secret does not stand in this file; say where it lies: { env = \"ONEK4_…\" }, { file = \"path\" } or \
                 { keyring = \"account\" }, and change the secret if this file was ever shared",
            );
        }
        None => {
            return section.wrong(
                section.line,
                format_args!("{whose} needs {key}: {{ env = \"ONEK4_…\" }}, {{ file = \"path\" }} or {{ keyring = \"account\" }}"),
            );
        }
    };
    let line = source.line;
    let (env, file, keyring) = (source.text("env"), source.text("file"), source.text("keyring"));
    let found = match (env, file, keyring) {
        (Some(env), None, None) => match is_variable(&env.value) {
            true => Some(SecretSource::Env(env.value)),
            false => source.wrong(env.line, "env must be the name of an environment variable, in capitals, digits and _"),
        },
        (None, Some(file), None) => Some(SecretSource::File(base.join(file.value))),
        (None, None, Some(keyring)) if (1..=100).contains(&keyring.value.len()) => Some(SecretSource::Keyring(keyring.value)),
        (None, None, Some(keyring)) => source.wrong(keyring.line, "keyring must be the name of an account, 1 to 100 characters"),
        _ => source.wrong(line, format_args!("{key} must have exactly one of env, file and keyring")),
    };
    source.finish();
    found
}

/// One of `[[models]]`. One that the catalogue does not have must say everything.
fn model(mut section: Section<'_, '_>, names: &mut Names, is_known: impl Fn(&str) -> bool) -> Option<ModelOverride> {
    section.need("id");
    section.need("provider");
    let id = section.text("id");
    let is_new = id.as_ref().is_some_and(|id| !is_known(&id.value));
    if is_new {
        for key in ["max_input", "max_output", "usd_per_mtok"] {
            section.need(key);
        }
    }
    let provider = section.parse::<Name>("provider");
    let aliases = section.texts("aliases").map(|aliases| aliases.value).unwrap_or_default();
    let max_input = section.number("max_input", 1..=100_000_000);
    let max_output = section.number("max_output", 0..=100_000_000);
    let search = price(&mut section, "usd_per_thousand_searches", Price::per_thousand_searches);
    let has_prices = section.has("usd_per_mtok");
    if let Some(search) = &search
        && !has_prices
    {
        section.wrong::<()>(search.line, "usd_per_thousand_searches needs usd_per_mtok beside it");
    }
    let prices = section.table("usd_per_mtok").and_then(|section| prices(section, search.map(|search| search.value)));
    for name in id.iter().chain(&aliases) {
        if !is_model(&name.value) {
            section.wrong::<()>(
                name.line,
                "a model's name has 1 to 128 characters out of letters, digits and . _ : / @ -, and no local/ before it",
            );
        } else if let Some(provider) = &provider
            && names.models.insert(name.value.clone(), (name.line, provider.value.clone())).is_some()
        {
            section.wrong::<()>(name.line, format_args!("the name {} stands in [[models]] a second time", name.value));
        }
    }
    section.finish();
    let is_whole = max_input.is_some() && max_output.is_some() && prices.is_some();
    if (has_prices && prices.is_none()) || (is_new && !is_whole) {
        return None;
    }
    Some(ModelOverride {
        id: id?.value,
        provider: provider?.value,
        aliases: aliases.into_iter().map(|alias| alias.value).collect(),
        max_input: max_input.map(|most| most.value),
        max_output: max_output.map(|most| most.value),
        prices,
    })
}

/// `usd_per_mtok`.
fn prices(mut section: Section<'_, '_>, search: Option<Price>) -> Option<ModelPrices> {
    section.need("input");
    let mut of = |key| price(&mut section, key, Price::per_million_tokens).map(|price| price.value);
    let input = of("input");
    let (cached, cache_write_short, cache_write_long) = (of("cached"), of("cache_write_short"), of("cache_write_long"));
    let (input_audio, input_image) = (of("input_audio"), of("input_image"));
    let (output, output_audio, output_image) = (of("output"), of("output_audio"), of("output_image"));
    section.finish();
    Some(ModelPrices {
        input: input?,
        output,
        cached,
        cache_write_short,
        cache_write_long,
        input_audio,
        input_image,
        output_audio,
        output_image,
        search,
    })
}

fn price(
    section: &mut Section<'_, '_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<Price, InvalidPrice>,
) -> Option<At<Price>> {
    let At { line, value } = section.decimal(key)?;
    match read(&value) {
        Ok(value) => Some(At { line, value }),
        Err(error) => section.wrong(line, format_args!("{key} {error}")),
    }
}

/// The kind of a provider that says none.
fn usual_kind(name: &Name) -> ProviderKind {
    match name.as_str() {
        "openai" => ProviderKind::Openai,
        "anthropic" => ProviderKind::Anthropic,
        "google" => ProviderKind::Gemini,
        "xai" => ProviderKind::Xai,
        _ => ProviderKind::OpenaiCompatible,
    }
}

fn is_variable(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A bare `local` prefix would hide the model behind the caller's own workstations.
fn is_model(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/@-".contains(&byte))
        && !name.starts_with("local/")
        && !name.starts_with("local@")
}

fn is_version(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version);
    date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use api_proxy::ProviderKind;

    use super::SecretSource;
    use crate::config::read;

    /// What is said of a text, line by line.
    fn check(text: &str, expected: &[&str]) {
        let mistakes = read(text, Path::new("/etc/1k4")).err().unwrap_or_default();
        let said: Vec<String> = mistakes.iter().map(|mistake| format!("{}: {}", mistake.line, mistake.problem)).collect();
        assert_eq!(said, expected, "{text}");
    }

    const OPENAI: &str =
        "[[providers]]\nname = \"openai\"\n[[providers.channels]]\nname = \"a\"\nsecret = { env = \"OPENAI_KEY\" }\n";

    #[test]
    fn a_provider_is_read_with_what_its_kind_implies() {
        let text = format!(
            "{OPENAI}[[providers.channels]]\nname = \"b\"\nkind = \"azure-deployments\"\nbase_url = \"https://r.openai.azure.com\"\n\
             secret = {{ file = \"azure.key\" }}\npriority = 1\nweight = 3\ndeployments = {{ \"gpt-5.5\" = \"prod\" }}\n\
             [[providers]]\nname = \"home\"\n[[providers.channels]]\nname = \"c\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
             [[models]]\nid = \"mine\"\nprovider = \"home\"\nmax_input = 1000\nmax_output = 100\n\
             usd_per_mtok = {{ input = \"0.000001\", output = 2.5 }}\n\
             [upstream]\nca_file = \"ca.pem\"\n"
        );
        let providers = read(&text, Path::new("/etc/1k4")).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).providers;
        let [a, b, c] = providers.channels.as_slice() else { panic!("{:?}", providers.channels) };
        assert_eq!((a.channel.kind, a.channel.priority, a.channel.weight), (ProviderKind::Openai, 0, 1));
        assert_eq!(Some(&a.channel.base), ProviderKind::Openai.usual_base().as_ref());
        assert_eq!(a.secret, Some(SecretSource::Env("OPENAI_KEY".into())));
        assert_eq!((b.channel.kind, b.channel.provider.as_str()), (ProviderKind::AzureDeployments, "openai"));
        assert_eq!((b.channel.priority, b.channel.weight, b.channel.api_version.as_deref()), (1, 3, None));
        assert_eq!(b.channel.deployments["gpt-5.5"], "prod");
        assert_eq!(b.secret, Some(SecretSource::File("/etc/1k4/azure.key".into())));
        assert_eq!((c.channel.kind, c.secret.clone()), (ProviderKind::OpenaiCompatible, None));
        assert_eq!(providers.models[0].prices.unwrap().output, api_proxy::Price::per_million_tokens("2.5").ok());
        assert_eq!(providers.ca_file.as_deref(), Some(Path::new("/etc/1k4/ca.pem")));
    }

    #[test]
    fn a_channel_serves_models_by_whatever_name_they_are_written() {
        let text = format!(
            "{OPENAI}models = [\"gpt-5.5\", \"cheap\"]\n[[providers.channels]]\nname = \"b\"\nkind = \"azure\"\n\
             base_url = \"https://r.openai.azure.com\"\nsecret = {{ env = \"K\" }}\n\
             deployments = {{ \"cheap\" = \"one\", \"gpt-5.5\" = \"two\" }}\n\
             [[providers]]\nname = \"anthropic\"\n[[providers.channels]]\nname = \"c\"\nsecret = {{ env = \"K\" }}\n\
             models = [\"claude-haiku-4-5-20251001\"]\n\
             [[models]]\nid = \"gpt-5.4-mini\"\nprovider = \"openai\"\naliases = [\"cheap\"]\n"
        );
        let providers = read(&text, Path::new("")).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).providers;
        let [a, b, c] = providers.channels.as_slice() else { panic!("{:?}", providers.channels) };
        assert_eq!(a.channel.models.as_deref(), Some(["gpt-5.5".to_owned(), "gpt-5.4-mini".to_owned()].as_slice()));
        assert_eq!(c.channel.models.as_deref(), Some(["claude-haiku-4-5".to_owned()].as_slice()));
        let deployments = [("gpt-5.4-mini", "one"), ("gpt-5.5", "two")].map(|(model, named)| (model.to_owned(), named.to_owned()));
        assert_eq!(b.channel.deployments, deployments.into());
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let secret = "a secret does not stand in this file; say where it lies: { env = \"ONEK4_…\" }, { file = \"path\" } or \
                      { keyring = \"account\" }, and change the secret if this file was ever shared";
        let channel =
            |settings: &str| format!("[[providers]]\nname = \"openai\"\n[[providers.channels]]\nname = \"a\"\n{settings}");
        check(
            "[[providers]]\nname = \"openai\"\n",
            &["1: providers needs [[providers.channels]]: the accounts through which it is asked"],
        );
        check(
            "[providers]\nname = \"openai\"\n",
            &["1: providers must be a list of tables: write [[providers]] with two brackets"],
        );
        check(&channel("secret = \"sk-proj-1234\"\n"), &[&format!("5: {secret}")]);
        check(
            &channel("secret = { env = \"sk-proj-1234\" }\n"),
            &["5: env must be the name of an environment variable, in capitals, digits and _"],
        );
        check(&channel("secret = { env = \"A\", file = \"b\" }\n"), &["5: secret must have exactly one of env, file and keyring"]);
        check(&channel(""), &["3: channels needs secret: { env = \"ONEK4_…\" }, { file = \"path\" } or { keyring = \"account\" }"]);
        let env = "secret = { env = \"K\" }\n";
        check(
            &channel(&format!("base_url = \"http://api.example.com\"\n{env}")),
            &["5: base_url must begin with https:// (http:// is taken for a loopback address such as http://127.0.0.1:8080 only)"],
        );
        check(&channel(&format!("{env}weight = 0\n")), &["6: weight must be a whole number from 1 to 1000"]);
        check(&channel(&format!("{env}priority = \"high\"\n")), &["6: priority must be a whole number from 0 to 65535"]);
        check(
            &channel(&format!("{env}sk_secret = 1\n")),
            &["6: unknown field `sk_secret` in channels, expected one of name, kind, base_url, secret, priority, weight, models, \
                 deployments, api_version"],
        );
        check(
            &channel(&format!("{env}\"sk-abc\" = 1\n")),
            &[
                "6: a field of an unknown name in channels, expected one of name, kind, base_url, secret, priority, weight, models, \
                 deployments, api_version",
            ],
        );
        check(
            &channel(&format!("{env}models = [\n\"gpt-5.5\",\n\"gpt-nonsense\"]\n")),
            &["8: neither the catalogue nor [[models]] has the model gpt-nonsense; check its spelling or add it"],
        );
        check(
            &channel(&format!("{env}models = [\"claude-haiku-4-5\"]\n")),
            &["6: the model claude-haiku-4-5 is anthropic's, and this channel is openai's"],
        );
        check(
            &channel(&format!("{env}deployments = {{ \"gpt-5.5\" = \"d\" }}\n")),
            &["6: deployments are Azure's: kind must be azure or azure-deployments"],
        );
        check(
            &channel(&format!("{env}api_version = \"2024-10-21\"\n")),
            &["6: api_version belongs to the kind azure-deployments only"],
        );
        check(
            &channel(&format!("{env}kind = \"azure-deployments\"\napi_version = \"v1\"\n")),
            &[
                "3: channels needs base_url: this kind of provider has no address of its own",
                "3: channels needs deployments, such as { \"gpt-5.5\" = \"my-deployment\" }",
                "7: api_version must be a date such as 2024-10-21, with -preview behind it if need be",
            ],
        );
        check(
            &channel(&format!("{env}kind = \"bedrock\"\n")),
            &["6: kind must be one of openai, anthropic, gemini, xai, azure, azure-deployments, openai-compatible"],
        );
        check(
            &format!("{OPENAI}{}", OPENAI.replace("\"a\"", "\"b\"")),
            &["7: the provider openai stands here a second time; put its channels under one"],
        );
        check(
            &format!("{OPENAI}[[providers.channels]]\nname = \"a\"\n{env}"),
            &["7: there is another channel a; each needs a name of its own"],
        );
        let home = "[[providers]]\nname = \"home\"\n[[providers.channels]]\nname = \"h\"\nbase_url = \"http://127.0.0.1:1\"\n";
        check(home, &["2: the catalogue has no models of home; add [[models]] with provider = \"home\""]);
        check(
            &format!(
                "{home}[[models]]\nid = \"local/x\"\nprovider = \"home\"\nmax_input = 1\nmax_output = 0\n\
                 usd_per_mtok = {{ input = 1e3, output = \"-1\" }}\n"
            ),
            &[
                "2: the catalogue has no models of home; add [[models]] with provider = \"home\"",
                "7: a model's name has 1 to 128 characters out of letters, digits and . _ : / @ -, and no local/ before it",
                "11: input must be a decimal number of US dollars such as 0.125",
                "11: output must be a decimal number of US dollars such as 0.125",
            ],
        );
        check(
            "[[models]]\nid = \"mine\"\nprovider = \"home\"\n",
            &[
                "1: models needs max_input",
                "1: models needs max_output",
                "1: models needs usd_per_mtok",
                "2: the model mine is home's, which no [[providers]] names",
            ],
        );
    }

    #[test]
    fn the_rest_of_the_file_is_read_whatever_is_wrong() {
        check(
            "listen = 1\n[admin]\nlisten = \"here\"\n[limits]\nconcurrent = 0\nrpm = 1\n[trial]\nfree_requests = -1\n[tls]\ncert = \"c\"\n",
            &[
                "1: listen must be a text in quotes",
                "3: listen must be an address with a port, such as 127.0.0.1:8443 or [::]:443",
                "5: concurrent must be a whole number from 1 to 4294967295",
                "6: unknown field `rpm` in limits, expected one of requests_per_minute, tokens_per_minute, concurrent",
                "8: free_requests must be a whole number from 0 to 1000000",
                "9: tls needs key",
            ],
        );
        let said = read("listen = \"a\nx = [1,\n", Path::new("")).err().unwrap_or_default();
        assert!(said.iter().all(|mistake| !mistake.problem.contains("unknown field")) && !said.is_empty(), "{said:?}");
    }

    #[test]
    fn the_example_is_valid_with_and_without_its_comments() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("1k4-lab.example.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        check(&text, &[]);
        // A line that begins with `#` and no blank behind it is a setting that was commented out.
        let settings: Vec<&str> =
            text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)).collect();
        check(&settings.join("\n"), &[]);
        let all = read(&settings.join("\n"), Path::new("")).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert!(
            all.providers.channels.len() >= 7 && all.admin.is_some() && all.assistant.is_some() && !all.providers.models.is_empty()
        );
    }
}
