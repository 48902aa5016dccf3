//! Identities that travel: 128 bits with a prefix that says what they name, random but for a request's, which begins with its time.

use std::{fmt, str::FromStr, time::SystemTime};

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not an identity of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0} id")]
pub struct InvalidId(&'static str);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh one from the operating system's generator.
            ///
            /// # Panics
            /// When the operating system has no randomness to give: nothing that follows would be safe.
            #[must_use]
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the operating system gives randomness");
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 26];
                base32().encode_mut(&self.0, &mut text);
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.strip_prefix($prefix).filter(|d| d.len() == 26).ok_or(InvalidId($kind))?;
                let mut bytes = [0; 16];
                base32().decode_mut(digits.as_bytes(), &mut bytes).map_err(|_| InvalidId($kind))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                // The text itself is left out of the error: it may be anything.
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

random_id!(
    /// One paired workstation, given by the Lab when a pairing is approved.
    DeviceId, "dev_", "device"
);
random_id!(
    /// One generation on one bridge. Unguessable, so that knowing it is part of the right to resume it.
    RelayId, "rly_", "relay"
);
random_id!(
    /// One person with an account on the Lab.
    UserId, "usr_", "user"
);
random_id!(
    /// One of a person's projects; keys belong to it.
    ProjectId, "prj_", "project"
);
random_id!(
    /// One request to the Lab's API; the answer's `x-1k4-request-id`.
    RequestId, "req_", "request"
);

random_id!(
    /// One conversation with models, a tree of messages.
    ConversationId, "cnv_", "conversation"
);
random_id!(
    /// One message of a conversation.
    MessageId, "msg_", "message"
);
random_id!(
    /// One folder that a person keeps conversations in.
    FolderId, "fld_", "folder"
);
random_id!(
    /// One file of a project, whatever its version.
    FileId, "fil_", "file"
);
random_id!(
    /// One stored content of files, encrypted.
    BlobId, "blb_", "blob"
);
random_id!(
    /// One task on a project's board.
    TaskId, "tsk_", "task"
);
random_id!(
    /// One answer or one agent's work, from its start to its end.
    RunId, "run_", "run"
);
random_id!(
    /// One question of a run to its owner.
    ApprovalId, "apr_", "approval"
);
random_id!(
    /// One remembered answer to such questions.
    RuleId, "rul_", "rule"
);
random_id!(
    /// One MCP server that a project's agents may use.
    ToolServerId, "srv_", "tool server"
);
random_id!(
    /// One browser that somebody is signed in with, whatever token it holds now.
    SessionId, "ses_", "session"
);
random_id!(
    /// One way in which a person signs in.
    IdentityId, "idn_", "identity"
);

impl RequestId {
    /// A fresh one for a request that came at that time: 48 bits of milliseconds since 1970, then 80 random ones, as in a UUID of
    /// version 7.
    ///
    /// Each request becomes rows under its id. In the order of time they are written side by side; random ones touch a page of the
    /// index each, which was measured to cost a database of 300,000 records 30 us a record instead of 4.5.
    ///
    /// # Panics
    /// When the operating system has no randomness to give, as for every other identity.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let Self(mut bytes) = Self::random();
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or_default();
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self(bytes)
    }
}

/// RFC 4648 "base32hex" in lower case without padding: sorts like the bytes and survives being read aloud.
fn base32() -> &'static Encoding {
    #[expect(clippy::expect_used, reason = "a constant alphabet of 32 distinct symbols")]
    static ENCODING: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut specification = Specification::new();
        specification.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
        specification.encoding().expect("the alphabet is valid")
    });
    &ENCODING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = DeviceId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 30);
        assert_eq!(serde_json::from_str::<DeviceId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn requests_sort_by_their_time() {
        let at = |millis| RequestId::at(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis)).to_string();
        let (first, second, third) = (at(1_763_664_180_000), at(1_763_664_180_001), at(1_900_000_000_000));
        assert!(first < second && second < third, "{first} {second} {third}");
        assert_ne!(at(7), at(7));
        assert!(first.starts_with("req_0"));
    }

    #[test]
    fn other_texts_are_refused() {
        let relay = RelayId::random().to_string();
        for text in ["", "dev_", "dev_zzzzzzzzzzzzzzzzzzzzzzzzzz", relay.as_str(), "dev_00000000000000000000000001"] {
            assert_eq!(text.parse::<DeviceId>(), Err(InvalidId("device")), "{text}");
        }
    }
}
