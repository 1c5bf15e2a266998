//! Two hosts that may both ask for a password: one after the other, also when they are called again.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_transport::{Channel, ChannelControl, End, Exit, Failure, RemoteCommand, Transport, TransportError};
use tokio::sync::watch;

/// How far the host is that is called first. Once it has greeted, ssh asks nothing any more on the way there.
#[derive(Clone, Debug)]
pub(crate) struct Turn(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The number of the latest call, and whether nobody knows yet what becomes of it.
    call: u64,
    is_called: bool,
    has_greeted: bool,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// What is to be called when the first host has greeted.
    pub(crate) fn greeted(&self) -> Arc<dyn Fn() + Send + Sync> {
        let turn = self.clone();
        Arc::new(move || {
            turn.0.send_modify(|state| {
                state.is_called = false;
                state.has_greeted = true;
            });
        })
    }

    fn begin(&self) -> Call {
        let mut number = 0;
        self.0.send_modify(|state| {
            state.call += 1;
            state.is_called = true;
            number = state.call;
        });
        Call { turn: self.clone(), number }
    }

    /// Waits until the second host may be called. Where the first was never reached, the copy ends, and what waits here with it: then
    /// nobody is asked for a password in vain.
    async fn wait(&self) {
        // An error would mean that there is no sender, and one of them is here.
        let _ = self.0.subscribe().wait_for(|state| state.has_greeted && !state.is_called).await;
    }
}

/// One call of the first host.
#[derive(Debug)]
struct Call {
    turn: Turn,
    number: u64,
}

impl Call {
    fn end(&self) {
        self.turn.0.send_if_modified(|state| {
            let is_latest = state.call == self.number && state.is_called;
            state.is_called &= !is_latest;
            is_latest
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end();
    }
}

/// The transport to the host whose turn it is first, or to the other one.
#[derive(Debug)]
pub(crate) struct InTurn {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) turn: Turn,
    pub(crate) is_first: bool,
}

impl Transport for InTurn {
    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        if !self.is_first {
            return async {
                self.turn.wait().await;
                self.transport.open(command).await
            }
            .boxed();
        }
        async {
            let call = self.turn.begin();
            let Channel { stdin, stdout, stderr, control } = self.transport.open(command).await?;
            Ok(Channel { stdin, stdout, stderr, control: Box::new(Called { control, call }) })
        }
        .boxed()
    }

    /// Nobody is asked anything there.
    fn open_beside<'a>(
        &'a self,
        command: &'a RemoteCommand,
    ) -> BoxFuture<'a, Result<Channel, TransportError>> {
        self.transport.open_beside(command)
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        self.transport.explain(end)
    }

    fn share(&self) -> bool {
        self.transport.share()
    }

    fn words_of_the_host(&self, stderr: &str) -> String {
        self.transport.words_of_the_host(stderr)
    }
}

/// Whatever ends the command ends the call too.
#[derive(Debug)]
struct Called {
    control: Box<dyn ChannelControl>,
    call: Call,
}

impl ChannelControl for Called {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        async {
            let exit = self.control.wait().await;
            self.call.end();
            exit
        }
        .boxed()
    }

    fn kill(&mut self) {
        self.control.kill();
        self.call.end();
    }

    fn process_id(&self) -> Option<u32> {
        self.control.process_id()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_second_waits_while_the_first_is_being_called() {
        let turn = Turn::new();
        let may_go = || turn.wait().now_or_never().is_some();
        assert!(!may_go());
        // In vain: then there is no copy that the second is needed for.
        drop(turn.begin());
        assert!(!may_go());
        let call = turn.begin();
        assert!(!may_go());
        turn.greeted()();
        assert!(may_go());
        let again = turn.begin();
        assert!(!may_go());
        // Not its own.
        drop(call);
        assert!(!may_go());
        again.end();
        assert!(may_go());
    }
}
