//! `--serve`: this program as the other side.

use ncc_local_store::{Access, LocalStore};
use ncc_protocol::serve::{Server, Writing};

use crate::{arguments::Arguments, failure::Failure, machine::Machine, nothing::Nothing};

/// Serves the local store over stdin and stdout until the client ends.
pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let (access, writing) = if arguments.serving.write {
        (Access::ReadWrite, Writing::Allowed)
    } else {
        (Access::ReadOnly, Writing::Refused)
    };
    let machine = Machine::read(arguments)?;
    machine.announce(arguments)?;
    let config = machine.local_store(access)?;
    // Whoever only looks at a store that is not there yet finds it empty, and does not make it.
    if let (Writing::Refused, Some(nothing)) = (writing, Nothing::instead_of(&config)) {
        let server = Server::new(tokio::io::stdin(), tokio::io::stdout(), &nothing, writing);
        return server.run().await.map_err(|error| Failure::plain(&error));
    }
    let store = LocalStore::open(config, access).map_err(|error| Failure::plain(&error))?;
    let server = Server::new(tokio::io::stdin(), tokio::io::stdout(), &store, writing);
    server.run().await.map_err(|error| Failure::plain(&error))
}
