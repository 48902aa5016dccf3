//! Canaries, and the search for them in every shape that a careless program could have left them in.

use std::{collections::HashMap, fmt, fs, path::Path, process::Command};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// A text that exists nowhere else: 32 characters of base 62.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Canary(String);

impl Canary {
    pub(super) fn fresh() -> Self {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = String::new();
        while text.len() < 32 {
            let mut bytes = [0; 64];
            getrandom::fill(&mut bytes).expect("randomness");
            // Each letter equally likely: 248 is the largest multiple of 62 in a byte.
            let letters = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            text.extend(letters.take(32 - text.len()));
        }
        Self(text)
    }

    /// Any other secret that must be nowhere.
    pub(super) fn of(text: &str) -> Self {
        assert!(text.len() >= 24, "too short to be unique");
        Self(text.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One canary in one shape.
struct Needle {
    bytes: Vec<u8>,
    name: String,
}

/// All needles, by their first bytes.
pub(super) struct Search(HashMap<[u8; PREFIX], Vec<Needle>>);

/// Bytes by which a needle is looked up; each is longer.
const PREFIX: usize = 8;

/// What was found where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// The place.
    pub(super) at: String,
    /// Whose canary, and in which shape.
    pub(super) what: String,
}

impl Search {
    /// A search for these canaries, each under its name.
    pub(super) fn new<'a>(canaries: impl IntoIterator<Item = (&'a str, &'a Canary)>) -> Self {
        let mut needles: HashMap<_, Vec<Needle>> = HashMap::new();
        for (name, Canary(text)) in canaries {
            let text = text.as_bytes();
            // Each half by itself: a line that was cut off is a leak as well.
            for half in [&text[..text.len() / 2], &text[text.len() / 2..]] {
                for (shape, bytes) in shapes(half) {
                    let prefix = bytes[..PREFIX].try_into().expect("a long needle");
                    needles.entry(prefix).or_default().push(Needle { bytes, name: format!("{name}: {shape}") });
                }
            }
        }
        Self(needles)
    }

    /// Every hit in `bytes`, which lay at `at`.
    pub(super) fn bytes(&self, at: &str, bytes: &[u8]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for start in 0..bytes.len().saturating_sub(PREFIX - 1) {
            let rest = &bytes[start..];
            let Some(needles) = rest.first_chunk().and_then(|prefix: &[u8; PREFIX]| self.0.get(prefix)) else { continue };
            for needle in needles.iter().filter(|needle| rest.starts_with(&needle.bytes)) {
                let hit = Hit { at: at.to_owned(), what: needle.name.clone() };
                if !hits.contains(&hit) {
                    hits.push(hit);
                }
            }
        }
        hits
    }

    /// Every hit in a file, in what it holds compressed, and in its name.
    pub(super) fn file(&self, path: &Path) -> Vec<Hit> {
        let at = path.display().to_string();
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{at}: {error}"));
        let mut hits = self.bytes(&at, &bytes);
        hits.extend(self.bytes("the name of a file", at.as_bytes()));
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let inflated = Command::new("gzip").args(["--decompress", "--stdout"]).arg(path).output().expect("gzip");
            hits.extend(self.bytes(&format!("{at}, inflated"), &inflated.stdout));
        }
        hits
    }

    /// Every hit in a directory and all below it; also how many files there were.
    pub(super) fn directory(&self, path: &Path) -> (Vec<Hit>, usize) {
        let (mut hits, mut files) = (Vec::new(), 0);
        for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("its type");
            if kind.is_dir() {
                let (below, count) = self.directory(&entry.path());
                hits.extend(below);
                files += count;
            } else if kind.is_file() {
                hits.extend(self.file(&entry.path()));
                files += 1;
            }
        }
        (hits, files)
    }
}

/// Every way in which these bytes may stand in a file.
fn shapes(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let units = |order: fn(u16) -> [u8; 2]| text.iter().flat_map(|byte| order(u16::from(*byte))).collect();
    let escaped = |start: &str| text.iter().flat_map(|byte| format!("{start}{byte:02x}").into_bytes()).collect();
    let list: Vec<String> = text.iter().map(u8::to_string).collect();
    let mut shapes = vec![
        ("plain", text.to_vec()),
        ("backwards", text.iter().rev().copied().collect()),
        ("hexadecimal", HEXLOWER.encode(text).into_bytes()),
        ("hexadecimal, upper case", HEXUPPER.encode(text).into_bytes()),
        ("UTF-16LE", units(u16::to_le_bytes)),
        ("UTF-16BE", units(u16::to_be_bytes)),
        ("JSON escapes", escaped("\\u00")),
        ("escapes of a debug line", escaped("\\x")),
        ("percent escapes", escaped("%")),
        ("numbers of a debug line", list.join(", ").into_bytes()),
    ];
    for (offset, name) in ["base64", "base64 at offset 1", "base64 at offset 2"].into_iter().enumerate() {
        // What stands before and after the text shares characters with it: those are left out.
        let (before, whole) = ((offset * 8).div_ceil(6), (offset + text.len()) * 8 / 6);
        for alphabet in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
            let encoded = alphabet.encode(&[&vec![0; offset], text].concat());
            shapes.push((name, encoded.as_bytes()[before..whole].to_vec()));
        }
    }
    shapes
}

#[test]
fn what_is_planted_is_found_in_every_shape_and_place() {
    let dir = journeys::programs::test_dir();
    let (planted, absent) = (Canary::fresh(), Canary::fresh());
    let search = Search::new([("planted", &planted), ("absent", &absent)]);
    let text = planted.as_str().as_bytes();
    let noise = |bytes: &[u8]| [b"{\"a\":\"".as_slice(), bytes, b"\",\"b\":1}\n"].concat();
    let mut files = vec![
        ("whole", noise(text)),
        ("cut off", noise(&text[..20])),
        ("begun late", noise(&text[12..])),
        ("hex", noise(HEXLOWER.encode(text).as_bytes())),
        ("utf-16", noise(&text.iter().flat_map(|byte| [*byte, 0]).collect::<Vec<u8>>())),
        ("json", noise(text.iter().map(|byte| format!("\\u{byte:04x}")).collect::<String>().as_bytes())),
        ("debug", noise(format!("{text:?}").as_bytes())),
        ("url", noise(text.iter().map(|byte| format!("%{byte:02x}")).collect::<String>().as_bytes())),
    ];
    let base64: Vec<_> = (0..3).map(|offset| BASE64.encode(&[&b"\xff\xee"[..offset], text, b"\xdd"].concat())).collect();
    files.extend(["base64 0", "base64 1", "base64 2"].into_iter().zip(base64).map(|(name, text)| (name, noise(text.as_bytes()))));
    fs::create_dir(dir.path().join("below")).unwrap();
    for (name, bytes) in &files {
        fs::write(dir.path().join("below").join(name), bytes).unwrap();
    }
    fs::write(dir.path().join("inflated"), noise(text)).unwrap();
    assert!(Command::new("gzip").arg("--keep").arg(dir.path().join("inflated")).status().unwrap().success());
    fs::write(dir.path().join("clean"), noise(b"nothing of note")).unwrap();
    fs::write(dir.path().join(format!("named-{planted}")), "").unwrap();

    let (hits, count) = search.directory(dir.path());
    assert_eq!(count, files.len() + 4);
    let places = [files.iter().map(|(name, _)| *name).collect(), vec!["inflated", "inflated.gz, inflated", "the name of a file"]];
    for place in places.concat() {
        assert!(hits.iter().any(|hit| hit.at.ends_with(place)), "not found: {place}");
    }
    assert!(hits.iter().all(|hit| hit.what.starts_with("planted: ") && !hit.at.ends_with("clean")), "{hits:?}");
    assert_eq!(search.bytes("here", b"short"), []);
}
