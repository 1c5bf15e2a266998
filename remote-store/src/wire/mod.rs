//! Fewer bytes on the wire, and more of them under way: NARs compressed on their way, with nothing on the host but its `zstd` or `gzip`.
//!
//! A filter prints late: nothing that waits for an answer may stand behind it. So questions stay on their own session, and a
//! transfer that is compressed gets a session for itself, of which one direction goes through a filter on the host, and which
//! ends with the transfer: only at the end of its input does a filter give the rest away.
//!
//! In the same way the bulk of a transfer is spread over several channels of the login where the line is long: `stripes`.
//!
//! Which program the host has is found out by the very script that starts the session: it says which in a line on stdout, and
//! that is waited for. Whatever goes wrong with such a session, the next transfer does without.

mod codec;
mod level;
mod stripes;

use std::{
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ncc_protocol::ProtocolError;
use ncc_store::NarPlan;
use ncc_transport::{CommandOnHost, FilteredStream, Findings, Program, Reader, RemoteScript, Writer};
use tokio::{io::AsyncReadExt as _, task::JoinSet};

use crate::{RemoteError, ServeProgram, route::Language, session::Lease, store::Shared};
pub(crate) use codec::Method;
use codec::{Encoding, WINDOW_LOG, decoded, encoded};
use stripes::Striping;
pub use stripes::{Connections, ConnectionsError};

/// Less than this is sent before a filter has started.
const WORTHWHILE: u64 = 1 << 20;

/// A host that is nearer is in the same building, or in the same machine: what the line could save there, compressing costs.
const NEAR: Duration = Duration::from_millis(2);

/// How long a host may take to start a filter.
const TIME_TO_BEGIN: Duration = Duration::from_secs(30);

/// How much a login shell may print before.
const NOISE_LIMIT: usize = 64 << 10;

/// The level where none is given.
const LEVEL: i32 = 3;

/// Whether and how NARs are compressed on their way to and from a host.
///
/// ```
/// use ncc_remote_store::Compress;
///
/// assert_eq!("zstd:9".parse(), Ok(Compress::Zstd { level: 9 }));
/// assert_eq!("zstd".parse(), Ok(Compress::Zstd { level: 3 }));
/// assert!("zstd:99".parse::<Compress>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// Where it pays: not for a little, not to a host that is near. With the host's `zstd`, or else its `gzip`, and as hard as
    /// the line leaves time for.
    Auto,
    /// Not at all.
    #[default]
    None,
    /// With gzip, whatever the line is.
    Gzip,
    /// With zstd at this level, 1 to 19, whatever the line is.
    Zstd {
        /// The level.
        level: i32,
    },
}

/// No way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is one of 'auto', 'none', 'gzip', 'zstd', and 'zstd:LEVEL' with a level from 1 to 19")]
pub struct CompressError;

impl FromStr for Compress {
    type Err = CompressError;

    fn from_str(text: &str) -> Result<Self, CompressError> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd { level: LEVEL }),
            _ => {
                let level = text.strip_prefix("zstd:").and_then(|level| level.parse().ok());
                level
                    .filter(|level| (1..=19).contains(level))
                    .map(|level| Self::Zstd { level })
                    .ok_or(CompressError)
            }
        }
    }
}

impl Compress {
    fn takes(self, method: Method) -> bool {
        match self {
            Self::Auto => true,
            Self::None => false,
            Self::Gzip => method == Method::Gzip,
            Self::Zstd { .. } => method == Method::Zstd,
        }
    }

    /// Of our side; `None` follows the line.
    fn level(self) -> Option<i32> {
        match self {
            Self::Zstd { level } => Some(level),
            Self::Gzip => Some(6),
            Self::Auto | Self::None => None,
        }
    }
}

/// What has become of the wish to have sessions apart.
#[derive(Debug, Default)]
pub(crate) struct Compressing {
    /// One has failed.
    is_given_up: AtomicBool,
    used: OnceLock<Method>,
    stripes: OnceLock<usize>,
}

/// How the bulk of a session is to be carried, before it is known what the host has for that.
pub(crate) struct Filter {
    stream: FilteredStream,
    compress: Compress,
    bytes: u64,
    striping: Option<Striping>,
}

/// How it is carried.
#[derive(Default)]
pub(crate) struct Carried {
    method: Option<Method>,
    /// How many, if more than one channel.
    stripes: Option<usize>,
    /// What carries it, as long as the session is there.
    carriers: JoinSet<()>,
}

impl Carried {
    /// As messages say it, if there is anything to say.
    pub(crate) fn what(&self) -> Option<String> {
        let method = self.method.map(|method| format!("compressed with {}", method.name()));
        let stripes = self.stripes.map(|stripes| format!("spread over {stripes} channels"));
        let whats: Vec<String> = method.into_iter().chain(stripes).collect();
        (!whats.is_empty()).then(|| whats.join(" and "))
    }
}

impl Shared {
    /// A session for this transfer, one direction of which goes through a filter if that pays.
    pub(crate) async fn lease_for(
        &self,
        stream: FilteredStream,
        plan: &NarPlan,
    ) -> Result<Lease, Arc<RemoteError>> {
        // Only the serve protocol leaves room for it.
        if self.language().await? == Language::Daemon {
            return self.pool.lease().await;
        }
        let bytes = plan.iter().fold(0_u64, |sum, info| sum.saturating_add(info.nar_size));
        if let Some(filter) = self.filter(stream, bytes).await? {
            let command = filter.script(self.options.script()).command();
            let connector = Arc::new(CommandOnHost::new(Arc::clone(&self.transport), command));
            match self.pool.lease_apart(connector, &filter).await {
                Ok(lease) => {
                    if let Some(carried) = lease.session.carried() {
                        carried.method.map(|method| self.compressing.used.set(method));
                        carried.stripes.map(|stripes| self.compressing.stripes.set(stripes));
                    }
                    return Ok(lease);
                }
                Err(error) => self.give_up_compressing(&error),
            }
        }
        self.pool.lease().await
    }

    /// The next transfers go without, since this is what came of one with a filter, or with stripes.
    pub(crate) fn give_up_compressing(&self, error: &RemoteError) {
        if !self.compressing.is_given_up.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "nothing is compressed from now on, nor spread over channels: the session for it failed: {error}"
            );
        }
    }

    /// Over how many channels the bulk of a transfer went, if over several.
    pub(crate) fn stripes(&self) -> Option<usize> {
        self.compressing.stripes.get().copied()
    }

    /// What transfers were compressed with, as far as any was.
    pub(crate) fn compression(&self) -> Option<&'static str> {
        self.compressing.used.get().map(|method| method.name())
    }

    /// How the bulk of a transfer is carried, if that is worth a session.
    async fn filter(&self, stream: FilteredStream, bytes: u64) -> Result<Option<Filter>, Arc<RemoteError>> {
        let (compress, connections) = (self.options.compress, self.options.connections);
        let may_compress = match compress {
            Compress::None => false,
            Compress::Auto => bytes >= WORTHWHILE,
            _ => true,
        };
        let may_spread = connections.may_spread(bytes);
        if self.compressing.is_given_up.load(Ordering::Relaxed) || !(may_compress || may_spread) {
            return Ok(None);
        }
        // Also makes sure that somebody has logged in.
        let round_trip = self.pool.round_trip().await?;
        if self.options.program == ServeProgram::Search && self.pool.needed_another_command() {
            tracing::info!("nothing is compressed: the account lets only one command pass");
            return Ok(None);
        }
        let compresses = may_compress && self.compresses(round_trip, bytes);
        let most = if may_spread { connections.most(round_trip, self.options.line_is_slow) } else { 1 };
        let striping = (most > 1).then(|| Striping::new(Arc::clone(&self.transport), stream, most));
        let compress = if compresses { compress } else { Compress::None };
        Ok((compresses || striping.is_some()).then_some(Filter { stream, compress, bytes, striping }))
    }

    fn compresses(&self, round_trip: Duration, bytes: u64) -> bool {
        let milliseconds = round_trip.as_secs_f64() * 1000.0;
        if self.options.compress == Compress::Auto && round_trip < NEAR && !self.options.line_is_slow {
            tracing::info!("nothing is compressed: the host is near (round trip {milliseconds:.1} ms)");
            return false;
        }
        tracing::info!("compressing {bytes} bytes of NARs (round trip {milliseconds:.1} ms)");
        true
    }
}

impl Filter {
    /// With the search for the programs, the line that says which are there, and the filters.
    fn script(&self, mut script: RemoteScript) -> RemoteScript {
        let level = self.compress.level().unwrap_or(LEVEL);
        for method in [Method::Zstd, Method::Gzip].into_iter().filter(|method| self.compress.takes(*method)) {
            let arguments = match (self.stream, method) {
                (FilteredStream::Stdin, Method::Zstd) => vec!["-dcq".to_owned()],
                (FilteredStream::Stdin, Method::Gzip) => vec!["-dc".to_owned()],
                (FilteredStream::Stdout, Method::Zstd) => {
                    vec![format!("-{level}"), "-cq".to_owned(), format!("--long={WINDOW_LOG}")]
                }
                // Where gzip is not asked for, it must at least not be what everybody waits for.
                (FilteredStream::Stdout, Method::Gzip) if self.compress == Compress::Auto => {
                    vec!["-1c".to_owned()]
                }
                (FilteredStream::Stdout, Method::Gzip) => vec![format!("-{level}c")],
            };
            let program =
                Program::new(method.name()).places(crate::options::places(method.name())).must_run();
            script = script.find(program).filter(self.stream, method.name(), arguments);
        }
        if self.striping.is_some() {
            script = script.striped(self.stream);
        }
        script.report()
    }

    /// Waits until the host says what it has, and puts our half of it into the streams.
    pub(crate) async fn begin(
        &self,
        stdin: Writer,
        mut stdout: Reader,
    ) -> Result<(Writer, Reader, Carried), ProtocolError> {
        let (findings, rest) = read_report(&mut stdout, TIME_TO_BEGIN).await?;
        let mut stdout: Reader = Box::new(std::io::Cursor::new(rest).chain(stdout));
        let (mut stdin, mut carried) = (stdin, Carried::default());
        if let Some(striping) = &self.striping {
            (stdin, stdout) = striping.begin(&findings, stdin, stdout, &mut carried).await?;
        }
        if self.compress == Compress::None {
            return Ok((stdin, stdout, carried));
        }
        let has = |method: &Method| self.compress.takes(*method) && findings.program(method.name()).is_some();
        let Some(method) = [Method::Zstd, Method::Gzip].into_iter().find(has) else {
            let why = "nothing is compressed: the host has no program for it that runs";
            if self.compress == Compress::Auto {
                tracing::info!("{why}");
            } else {
                tracing::warn!("{why}");
            }
            return Ok((stdin, stdout, carried));
        };
        tracing::info!(
            "compressing with {method}; on the host: {version}",
            method = method.name(),
            version = findings.version(method.name()).unwrap_or("unknown version"),
        );
        carried.method = Some(method);
        let encoding = Encoding { method, level: self.compress.level(), bytes: self.bytes };
        Ok(match self.stream {
            FilteredStream::Stdin => (encoded(stdin, encoding), stdout, carried),
            FilteredStream::Stdout => (stdin, decoded(stdout, method), carried),
        })
    }
}

fn ended() -> ProtocolError {
    ProtocolError::UnexpectedEnd { what: "what the host has for the transfer" }
}

/// The line in which a script says what it has found, and what has come behind it.
async fn read_report(stdout: &mut Reader, patience: Duration) -> Result<(Findings, Vec<u8>), ProtocolError> {
    let read = async {
        let mut came = Vec::new();
        while came.len() < NOISE_LIMIT {
            // A stream that breaks is explained by how the host's program ended.
            if stdout.read_buf(&mut came).await.unwrap_or(0) == 0 {
                break;
            }
            if let Some(end) = Findings::end_in(&came) {
                let rest = came.split_off(end);
                return Findings::parse(&came).map(|findings| (findings, rest)).ok_or_else(ended);
            }
        }
        Err(ended())
    };
    tokio::time::timeout(patience, read).await.unwrap_or_else(|_| Err(ended()))
}
