//! The part of the configuration that is about agents: what leads out of this Lab.

use super::document::Section;
use crate::lab::tools::reach::HostPort;

/// Addresses at most.
const MOST_ADDRESSES: usize = 256;

/// What agents may reach.
#[derive(Debug, Clone)]
pub struct Agents {
    /// Whether a project can have its agents fetch pages of the web.
    pub web_fetch: bool,
    /// What is reached although it is not on the public internet, by http too.
    pub allow_private: Vec<HostPort>,
}

impl Default for Agents {
    fn default() -> Self {
        Self { web_fetch: true, allow_private: Vec::new() }
    }
}

/// Reads `[agents]`.
pub(super) fn read(root: &mut Section<'_, '_>) -> Agents {
    let mut agents = Agents::default();
    let Some(mut section) = root.table("agents") else { return agents };
    if let Some(switch) = section.word("web_fetch", &[("on", true), ("off", false)]) {
        agents.web_fetch = switch.value;
    }
    if let Some(listed) = section.texts("allow_private") {
        if listed.value.len() > MOST_ADDRESSES {
            section.wrong::<()>(listed.line, format_args!("allow_private may name {MOST_ADDRESSES} addresses at most"));
        }
        for address in listed.value {
            match address.value.parse() {
                Ok(host) => agents.allow_private.push(host),
                Err(_) => {
                    section.wrong::<()>(address.line, "allow_private must name hosts with ports, such as \"wiki.internal:8080\"");
                }
            }
        }
    }
    section.finish();
    agents
}

#[cfg(test)]
mod tests {
    use super::{super::document::Document, *};

    fn check(text: &str) -> Result<(bool, usize), Vec<String>> {
        let (document, table) = Document::parse(text);
        let mut root = document.root(&table);
        let agents = read(&mut root);
        root.finish();
        let mistakes = document.into_mistakes();
        let problems = mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.line, mistake.problem)).collect::<Vec<_>>();
        if problems.is_empty() { Ok((agents.web_fetch, agents.allow_private.len())) } else { Err(problems) }
    }

    #[test]
    fn agents_reach_what_their_operator_says() {
        assert_eq!(check(""), Ok((true, 0)));
        assert_eq!(check("[agents]\nweb_fetch = \"off\"\nallow_private = [\"wiki:80\", \"[::1]:443\"]"), Ok((false, 2)));
        assert_eq!(
            check("[agents]\nweb_fetch = \"no\"\nallow_private = [\n\"wiki\"]"),
            Err(vec![
                "2: web_fetch must be one of on, off".to_owned(),
                "4: allow_private must name hosts with ports, such as \"wiki.internal:8080\"".to_owned(),
            ])
        );
    }
}
