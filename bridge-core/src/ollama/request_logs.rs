//! Whether Ollama writes down what it is asked.

use std::{env, fs, path::Path};

/// Whether an Ollama on this computer was started with `OLLAMA_DEBUG_LOG_REQUESTS`: it then keeps every prompt in files under the
/// temporary directory, whatever this bridge keeps to itself. A service with a temporary directory of its own cannot be seen into.
#[must_use]
pub fn debug_body_logging() -> bool {
    has_request_logs(&env::temp_dir()) || cfg!(unix) && has_request_logs(Path::new("/tmp"))
}

/// The directories are called `ollama-request-logs-` and a random number (`server/inference_request_log.go`).
fn has_request_logs(directory: &Path) -> bool {
    // A directory that cannot be listed cannot be judged.
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ollama-request-logs-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_directory_gives_it_away() {
        let directory = env::temp_dir().join(format!("1k4-request-logs-{}", std::process::id()));
        fs::create_dir_all(directory.join("ollama-request")).unwrap();
        assert!(!has_request_logs(&directory));
        assert!(!has_request_logs(&directory.join("missing")));
        fs::create_dir(directory.join("ollama-request-logs-1234")).unwrap();
        assert!(has_request_logs(&directory));
        fs::remove_dir_all(&directory).unwrap();
    }
}
