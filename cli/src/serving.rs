//! `--serve`: this program as the other side.

use ncc_local_store::{Access, LocalStore};
use ncc_protocol::serve::{Server, Writing};

use crate::{arguments::Arguments, failure::Failure, intent::ServeIntent, nothing::Nothing};

/// Serves the local store over stdin and stdout until the client ends.
pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let intent = ServeIntent::new(arguments)?;
    // What can be done here is not what can be done at the other end, where it is read.
    serve_store(intent).await.map_err(Failure::without_hints)
}

async fn serve_store(ServeIntent { config, write }: ServeIntent) -> Result<(), Failure> {
    let (access, writing) =
        if write { (Access::ReadWrite, Writing::Allowed) } else { (Access::ReadOnly, Writing::Refused) };
    // Whoever only looks at a store that is not there yet finds it empty, and does not make it.
    if let (Writing::Refused, Some(nothing)) = (writing, Nothing::instead_of(&config)) {
        let server = Server::new(tokio::io::stdin(), tokio::io::stdout(), &nothing, writing);
        return server.run().await.map_err(|error| Failure::plain(&error));
    }
    let store = LocalStore::open(config, access).map_err(|error| Failure::plain(&error))?;
    let server = Server::new(tokio::io::stdin(), tokio::io::stdout(), &store, writing);
    server.run().await.map_err(|error| Failure::plain(&error))
}
