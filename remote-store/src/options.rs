//! What to run on the other side, and how to talk about it.

use ncc_store::StoreDir;
use ncc_transport::{LineSink, RemoteCommand};

/// How to start the server on the host. Fields may be added.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The program, by name or path. Default `nix-store`.
    pub program: String,
    /// What stands between the program and `--serve`, for programs that are not `nix-store` itself.
    pub program_arguments: Vec<String>,
    /// `--store URI` for the other side; `None` is its default store.
    pub store: Option<String>,
    /// The logical store directory, which both sides must share.
    pub store_dir: StoreDir,
    /// Is handed each line that the host writes to stderr while the connection lasts.
    pub stderr: Option<LineSink>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            program: "nix-store".to_owned(),
            program_arguments: Vec::new(),
            store: None,
            store_dir: StoreDir::default(),
            stderr: None,
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServeOptions")
            .field("program", &self.program)
            .field("store", &self.store)
            .field("store_dir", &self.store_dir)
            .finish_non_exhaustive()
    }
}

impl ServeOptions {
    /// The command of both directions: a source needs `--write` too, to protect its paths from the collector.
    pub(crate) fn command(&self) -> RemoteCommand {
        let command =
            RemoteCommand::new(&self.program).args(&self.program_arguments).args(["--serve", "--write"]);
        match &self.store {
            Some(uri) => command.args(["--store", uri]),
            None => command,
        }
    }
}
