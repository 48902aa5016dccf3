//! A computer with one user on it: a home, perhaps a network of its own, and a record of everything that was printed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;

use super::{Service, program};

/// A computer with one user on it.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
    user: Option<u32>,
    namespace: Option<String>,
    /// A copy of the programs, for a user who may not enter the directory of the others.
    programs: Option<PathBuf>,
    /// What is in the environment beside what always is.
    variables: Vec<(String, String)>,
    started: Arc<AtomicUsize>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; −1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {:?} {:?}", self.out, self.err))
    }
}

impl Machine {
    /// A machine whose files lie in `root`.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let machine = Self { root, user: None, namespace: None, programs: None, variables: Vec::new(), started: Arc::default() };
        for directory in ["home", "tmp", "run", "printed"] {
            machine.make_private(&machine.root.join(directory));
        }
        machine
    }

    /// The same, but its user is this one and not the test's. Needs root.
    ///
    /// # Panics
    /// When the home cannot be given to that user.
    #[must_use]
    pub fn of_user(mut self, user: u32) -> Self {
        let programs = self.root.join("programs");
        self.make_private(&programs);
        let copied = fs::copy(program("1k4-bridge"), programs.join("1k4-bridge"));
        copied.unwrap_or_else(|error| panic!("the bridge cannot be copied: {error}"));
        self.programs = Some(programs);
        self.user = Some(user);
        // The test's directory above it is the test's own, and closed.
        let above = self.root.parent().unwrap_or(&self.root);
        fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .unwrap_or_else(|error| panic!("{}: {error}", above.display()));
        give(&self.root, user);
        self
    }

    /// The same machine, used by somebody else: files and environment are the first user's.
    #[must_use]
    pub fn used_by(&self, user: u32) -> Self {
        Self { user: Some(user), ..self.clone() }
    }

    /// The same, with this in the environment of everything that is started.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, in this network namespace. Needs root.
    #[must_use]
    pub fn in_network(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The user's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The directory for sockets and the like, which is the user's alone.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Writes a file of the user's.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.home().join(path);
        self.make_private(file.parent().unwrap_or(&file));
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Some(user) = self.user {
            give(&self.home(), user);
        }
    }

    /// Writes a file that only the user can read, such as one with a secret in it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_private(&self, path: &str, text: &str) {
        self.write(path, text);
        let file = self.home().join(path);
        let set = fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600));
        set.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Starts a program of the workspace.
    #[must_use]
    pub fn start(&self, name: &str, words: &[&str]) -> Service {
        self.start_as(name, &self.program(name), words)
    }

    /// Where a program of the workspace lies for this user.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.as_ref().map_or_else(|| program(name), |copies| copies.join(name))
    }

    /// Starts any program, such as curl.
    #[must_use]
    pub fn start_tool(&self, name: &str, words: &[&str]) -> Service {
        self.start_as(name, Path::new(name), words)
    }

    /// A program of the workspace, to its end.
    #[must_use]
    pub fn say(&self, name: &str, words: &[&str]) -> Said {
        self.start(name, words).ended()
    }

    /// The same; what it prints is not kept: it may be a secret.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn say_unwritten(&self, name: &str, words: &[&str]) -> Said {
        Self::whole(name, self.command(&program(name), words), "")
    }

    /// Any program, to its end.
    #[must_use]
    pub fn say_tool(&self, name: &str, words: &[&str]) -> Said {
        self.start_tool(name, words).ended()
    }

    /// Any program that is told `input` and not its arguments, to its end; what it prints is not kept.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn say_to_tool(&self, name: &str, words: &[&str], input: &str) -> Said {
        Self::whole(name, self.command(Path::new(name), words), input)
    }

    fn whole(name: &str, mut command: Command, input: &str) -> Said {
        let failed = |error: io::Error| -> ! { panic!("{name} cannot be started or spoken to: {error}") };
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| failed(error));
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).unwrap_or_else(|error| failed(error));
        }
        let output = child.wait_with_output().unwrap_or_else(|error| failed(error));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn start_as(&self, name: &str, program: &Path, words: &[&str]) -> Service {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let printed = |end: &str| {
            let path = self.root.join("printed").join(format!("{number:03}-{name}.{end}"));
            let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, file)
        };
        let ((out_path, out), (err_path, err)) = (printed("out"), printed("err"));
        let child = self.command(program, words).stdout(out).stderr(err).spawn();
        Service::new(child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}")), out_path, err_path)
    }

    /// In the user's home and with nothing of the test's environment; as loud as it can be made.
    fn command(&self, program: &Path, words: &[&str]) -> Command {
        // Each of these becomes the next: the process that is started is the program's.
        let mut line: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            line.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        if let Some(user) = self.user {
            line.extend(["setpriv", "--clear-groups"].map(str::to_owned));
            line.extend([format!("--reuid={user}"), format!("--regid={user}"), "--".to_owned()]);
        }
        line.push(program.display().to_string());
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .args(words)
            .current_dir(self.home())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", self.root.join("tmp"))
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .env("LANG", "C.UTF-8")
            .env("RUST_LOG", "trace")
            .env("ONEK4_LOG", "debug")
            .env("RUST_BACKTRACE", "full")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    fn make_private(&self, directory: &Path) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }
}

/// Gives a directory with all that is in it to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap_or_else(|error| panic!("{}: {error}; this test needs root", path.display()));
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.flatten().for_each(|entry| give(&entry.path(), user));
    }
}
