//! A page of HTML as text, in one pass over its bytes.
//!
//! No tree is made of it. A tree would be as deep as a stranger likes, and as large: a browser's rules for mending a page open elements
//! again that were closed, so that some thousand tags become millions of elements. Here nothing is nested. What there is to say is said in
//! the order in which it stands, in time and room that grow with the page's length and with nothing else.

/// Bytes of a link's address that are shown: longer ones carry what is nobody's address.
const MOST_ADDRESS: usize = 500;
/// Bytes of a character's name between `&` and `;` at most.
const MOST_NAME: usize = 10;
/// Elements whose words are not said on a page.
const UNSAID: [&str; 6] = ["script", "style", "template", "noscript", "svg", "iframe"];

/// What a page says: headings, lists, cells and links as Markdown has them.
pub(super) fn text_of(html: &str) -> String {
    let mut said = Said::default();
    let mut rest = html;
    while let Some(at) = memchr::memchr(b'<', rest.as_bytes()) {
        said.words(&rest[..at]);
        rest = &rest[at..];
        rest = match Markup::read(rest) {
            // A sign in a sentence.
            None => {
                said.words("<");
                &rest[1..]
            }
            Some((Markup::Tag(tag), behind)) if !tag.closes && UNSAID.contains(&tag.name.as_str()) => behind_end(behind, &tag.name),
            Some((Markup::Tag(tag), behind)) => {
                said.tag(tag);
                behind
            }
            Some((Markup::Nothing, behind)) => behind,
        };
    }
    said.words(rest);
    said.text
}

/// What begins with `<`.
enum Markup {
    Tag(Tag),
    /// A comment, a declaration.
    Nothing,
}

struct Tag {
    /// In lower case.
    name: String,
    closes: bool,
    /// Where it leads to, or what is said in the place of a picture.
    told: Option<String>,
}

impl Markup {
    /// It, and what stands behind it.
    fn read(html: &str) -> Option<(Self, &str)> {
        if let Some(comment) = html.strip_prefix("<!--") {
            return Some((Self::Nothing, comment.split_once("-->").map_or("", |(_, behind)| behind)));
        }
        let inner = html.strip_prefix('<')?;
        if inner.starts_with(['!', '?']) {
            return Some((Self::Nothing, inner.split_once('>').map_or("", |(_, behind)| behind)));
        }
        let (closes, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
        if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let end = inner.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).unwrap_or(inner.len());
        let name = inner[..end].to_ascii_lowercase();
        let wanted = match name.as_str() {
            "a" => Some("href"),
            "img" => Some("alt"),
            _ => None,
        };
        let (told, behind) = attributes(&inner[end..], wanted.filter(|_| !closes));
        Some((Self::Tag(Tag { name, closes, told }), behind))
    }
}

/// The value of one attribute of a tag, and what stands behind the tag.
fn attributes<'a>(html: &'a str, wanted: Option<&str>) -> (Option<String>, &'a str) {
    let (mut rest, mut told) = (html, None);
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(behind) = rest.strip_prefix('>') {
            return (told, behind);
        }
        if rest.is_empty() {
            return (told, rest);
        }
        // An equals sign at the beginning is a part of the name.
        let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=');
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find(ends).map_or(rest.len(), |end| first + end);
        let (name, behind) = rest.split_at(end);
        rest = behind.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let Some(value) = rest.strip_prefix('=') else { continue };
        let value = value.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, behind) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_at(value.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(value.len())),
        };
        if wanted.is_some_and(|wanted| name.eq_ignore_ascii_case(wanted)) && value.len() <= MOST_ADDRESS {
            told = Some(value.to_owned());
        }
        rest = behind;
    }
}

/// What stands behind the end of an element whose words are not said; nothing where it has no end.
fn behind_end<'a>(html: &'a str, name: &str) -> &'a str {
    for at in memchr::memchr_iter(b'<', html.as_bytes()) {
        let Some(closing) = html[at..].strip_prefix("</") else { continue };
        if closing.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return closing.split_once('>').map_or("", |(_, behind)| behind);
        }
    }
    ""
}

/// What was said so far.
#[derive(Default)]
struct Said {
    text: String,
    /// Line breaks that stand before the next word.
    breaks: usize,
    /// Whether a blank does.
    blank: bool,
    /// What does when the next word begins: a bullet, a heading's signs.
    sign: &'static str,
    /// Where the link leads to that is open.
    link: Option<String>,
    /// How many elements are open that keep their blanks and lines.
    kept: usize,
}

impl Said {
    fn tag(&mut self, Tag { name, closes, told }: Tag) {
        match (name.as_str(), closes) {
            ("br", _) => self.breaks(1),
            ("li", false) => self.begin(1, "* "),
            ("h1", false) => self.begin(2, "# "),
            ("h2", false) => self.begin(2, "## "),
            ("h3", false) => self.begin(2, "### "),
            ("h4" | "h5" | "h6", false) => self.begin(2, "#### "),
            ("td" | "th", false) if !self.text.is_empty() && self.breaks == 0 => self.sign = " | ",
            ("a", false) => {
                self.end_link();
                let leads = |to: &String| !to.is_empty() && !to.starts_with('#') && !starts_with(to, "javascript:");
                self.link = told.filter(leads);
                if self.link.is_some() {
                    self.say("[");
                }
            }
            ("a", true) => self.end_link(),
            ("img", false) => self.words(&told.unwrap_or_default()),
            ("pre" | "textarea", false) => {
                self.kept += 1;
                self.breaks(2);
            }
            ("pre" | "textarea", true) => {
                self.kept = self.kept.saturating_sub(1);
                self.breaks(2);
            }
            ("p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "dl" | "table" | "blockquote" | "title" | "hr", _) => {
                self.breaks(2);
            }
            (
                "div" | "section" | "article" | "header" | "footer" | "nav" | "main" | "aside" | "form" | "fieldset" | "figure"
                | "figcaption" | "address" | "details" | "summary" | "option" | "button" | "tr" | "li" | "dt" | "dd" | "caption",
                _,
            ) => self.breaks(1),
            _ => {}
        }
    }

    fn begin(&mut self, breaks: usize, sign: &'static str) {
        self.breaks(breaks);
        self.sign = sign;
    }

    fn breaks(&mut self, count: usize) {
        self.breaks = self.breaks.max(count);
        self.sign = "";
    }

    /// Words between tags.
    fn words(&mut self, html: &str) {
        if html.is_empty() {
            return;
        }
        let text = decoded(html);
        if self.kept > 0 {
            return self.say(&text);
        }
        for (at, word) in text.split(|c: char| c.is_whitespace()).enumerate() {
            self.blank |= at > 0;
            if !word.is_empty() {
                self.say(word);
            }
        }
    }

    fn say(&mut self, text: &str) {
        let breaks = std::mem::take(&mut self.breaks);
        let blank = std::mem::take(&mut self.blank);
        let sign = std::mem::take(&mut self.sign);
        if !self.text.is_empty() {
            (0..breaks).for_each(|_| self.text.push('\n'));
        }
        if blank && breaks == 0 && sign.is_empty() && !self.text.is_empty() && !self.text.ends_with('[') {
            self.text.push(' ');
        }
        self.text.push_str(sign);
        self.text.push_str(text);
    }

    fn end_link(&mut self) {
        if let Some(link) = self.link.take() {
            let blank = std::mem::take(&mut self.blank);
            self.text.push_str("](");
            self.text.extend(link.chars().filter(|c| !c.is_control() && !c.is_whitespace()));
            self.text.push(')');
            self.blank = blank;
        }
    }
}

fn starts_with(text: &str, beginning: &str) -> bool {
    text.trim_start().get(..beginning.len()).is_some_and(|found| found.eq_ignore_ascii_case(beginning))
}

/// Characters that are named rather than written. The names are those that pages have; of a rarer one the name is shown, which a reader
/// knows as well.
fn decoded(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.bytes().take(MOST_NAME + 1).position(|byte| byte == b';');
        match end.and_then(|end| Some((character(&rest[..end])?, end))) {
            Some((character, end)) => {
                text.push(character);
                rest = &rest[end + 1..];
            }
            None => text.push('&'),
        }
    }
    text.push_str(rest);
    text
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        let code = hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())?;
        return char::from_u32(code).filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "laquo" => '«',
        "raquo" => '»',
        "bull" => '•',
        "middot" => '·',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "deg" => '°',
        "times" => '×',
        "euro" => '€',
        "pound" => '£',
        "sect" => '§',
        "rarr" => '→',
        "larr" => '←',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_its_reader_sees() {
        for (html, text) in [
            ("plain &amp; simple", "plain & simple"),
            ("<p>one\n  two<p>three", "one two\n\nthree"),
            ("<h1>T</h1><p>a <b>b</b>c<br>d", "# T\n\na bc\nd"),
            ("<ul><li>x<li>y</ul>z", "* x\n* y\n\nz"),
            ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a | b\n1 | 2"),
            ("see <a href='/x?y=1&z'> here </a>.", "see [here](/x?y=1&z) ."),
            ("<a href=\"javascript:x()\">no</a> <a>none</a> <a href=#f>nor</a>", "no none nor"),
            ("<script>if (a<b) '</div>'</script><STYLE>p{}</StYlE >x<!-- <p>no --> y", "x y"),
            ("a <pre>b\n  c</pre>d", "a\n\nb\n  c\n\nd"),
            ("<img alt='a cat' src=x> 1 < 2 &lt;p&gt; &#x1F600;&#65;&nosuch;&", "a cat 1 < 2 <p> \u{1f600}A&nosuch;&"),
            ("<div title='</div>'><p a=> b</div><//x><", "b\n<//x><"),
            ("<!doctype html><?xml?><title>T</title>x", "T\n\nx"),
            ("<svg><style><g></svg>x", "x"),
            ("<script>never ends", ""),
            ("<p title='never ends", ""),
            ("<p ==x>é<ü>", "é<ü>"),
        ] {
            assert_eq!(text_of(html), text, "{html}");
        }
    }

    /// None of them is made more of than it is, nor takes longer than its bytes do: the time is told, and that it ends at all is the test.
    #[test]
    fn no_page_is_deep_large_or_slow() {
        let most = 2 << 20;
        let fill = |before: &str, piece: &str| before.to_owned() + &piece.repeat((most - before.len()) / piece.len());
        let reopened: String = (0..20_000).map(|n| format!("<b id={n}>")).collect();
        for (name, html) in [
            ("deep", fill("", "<div>")),
            ("closed by others", fill("", "<div></x>")),
            ("closed in comments", fill("", "<div><!--</div>-->")),
            ("closed in attributes", fill("", "<div a='</div>'>")),
            ("beyond a barrier", fill("", "<div><object></div></object>")),
            ("opened again and again", fill(&reopened, "<p>x</p>")),
            ("no end of a comment", fill("", "<!--")),
            ("no end of a script", fill("", "<script>")),
            ("no end of a quote", fill("", "<a href='")),
            ("one tag", fill("<p ", "a=b c ")),
            ("links", fill("", "<a href=x>")),
            ("signs", fill("", "<")),
            ("names", fill("", "&")),
            ("closings", fill("<script>", "</")),
            ("cells", fill("x", "<td>y")),
        ] {
            let begun = std::time::Instant::now();
            let text = text_of(&html);
            println!("{name}: {} bytes of {} in {:?}", text.len(), html.len(), begun.elapsed());
            assert!(text.len() <= 2 * html.len(), "{name}");
        }
    }
}
