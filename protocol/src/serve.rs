//! The serve protocol: strict request and reply, one pipe each way, no error frames.
//!
//! A server answers in the order of the requests, so a client may write as many as it likes before it reads, as
//! long as somebody always reads the answers. Failure is the end of the stream: `k` answers mean that `k` requests
//! took effect, and the reason stands on the server's stderr.

mod greeting;
mod reply;
mod request;
mod server;

pub use greeting::{
    CLIENT_MAGIC, SERVER_MAGIC, Version, client_greeting, read_server_greeting, read_server_greeting_or,
};
pub use reply::{put_path_info, read_added, read_closure, read_path_info, read_path_infos, read_valid_paths};
pub use request::Request;
pub use server::{ServeError, Server, Substituter, Writing};
