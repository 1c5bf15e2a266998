//! The answers to the requests, each behind its messages.

use std::collections::{BTreeMap, BTreeSet};

use ncc_store::{PathInfo, StoreDir, StorePath, StorePathSet};
use tokio::io::AsyncRead;

use super::{
    AnswerError, Daemon, LogMessage, NarReader, Realisation, Request, Version,
    derived::{OUTPUT_LIMIT, OUTPUT_NAME_LIMIT},
    log::{Pulling, read_messages},
};
use crate::{
    ProtocolError,
    path_info::read_metadata,
    serve::read_valid_paths,
    wire::{MESSAGE_LIMIT, WireReader},
};

/// What would be done to make something valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Derivations that would be built.
    pub build: BTreeSet<StorePath>,
    /// Paths that would be substituted.
    pub substitute: BTreeSet<StorePath>,
    /// Paths that nobody can make.
    pub unknown: BTreeSet<StorePath>,
    /// What would be fetched, in bytes, as far as substituters say.
    pub download_size: u64,
    /// The NARs of what would be substituted, in bytes.
    pub nar_size: u64,
}

/// The answer to any request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It is done: SetOptions, EnsurePath, all kinds of roots, AddSignatures, additions, RegisterDrvOutput.
    Done,
    /// IsValidPath.
    IsValid(bool),
    /// QueryValidPaths, QuerySubstitutablePaths: some of those in the question.
    Paths(BTreeSet<StorePath>),
    /// QueryDerivationOutputs.
    OutputPaths(BTreeSet<StorePath>),
    /// QueryPathInfo; `None` if the path is not valid.
    PathInfo(Option<Box<PathInfo>>),
    /// QueryMissing.
    Missing(Missing),
    /// QueryDerivationOutputMap: outputs by name, those whose path is not known yet without one.
    Outputs(BTreeMap<String, Option<StorePath>>),
    /// QueryRealisation.
    Realisation(Option<Realisation>),
    /// NarFromPath: the NAR follows.
    Nar(NarReader),
}

/// Reads answers, in the order of the requests.
///
/// Light: make one for each answer, or one for a connection. It keeps nothing between answers.
#[derive(Debug)]
pub struct Answers<'a, R, S> {
    reader: &'a mut WireReader<R>,
    store_dir: &'a StoreDir,
    daemon: &'a Daemon,
    sink: S,
}

impl<'a, R: AsyncRead + Unpin, S: FnMut(LogMessage)> Answers<'a, R, S> {
    /// Reads from `reader`; what the daemon says besides goes to `sink`.
    pub fn new(reader: &'a mut WireReader<R>, store_dir: &'a StoreDir, daemon: &'a Daemon, sink: S) -> Self {
        Self { reader, store_dir, daemon, sink }
    }

    /// The answer to `request`.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if the daemon refuses, [`AnswerError::Broken`] if the answer is none.
    pub async fn read(&mut self, request: &Request) -> Result<Answer, AnswerError> {
        Ok(match request {
            Request::SetOptions(_) | Request::RegisterRealisation { .. } => {
                self.messages().await?;
                Answer::Done
            }
            Request::AddToStoreNar { .. } | Request::AddMultipleToStore { .. } => {
                self.added().await?;
                Answer::Done
            }
            Request::EnsurePath { .. }
            | Request::AddTempRoot { .. }
            | Request::AddTempRoots { .. }
            | Request::AddIndirectRoot { .. }
            | Request::AddSignatures { .. } => {
                self.done().await?;
                Answer::Done
            }
            Request::AddPermRoot { link, .. } => {
                self.root(link).await?;
                Answer::Done
            }
            Request::IsValidPath { .. } => Answer::IsValid(self.is_valid().await?),
            Request::QueryValidPaths { paths, .. } | Request::QuerySubstitutablePaths { paths } => {
                Answer::Paths(self.paths(paths).await?)
            }
            Request::QueryPathInfo { path } => Answer::PathInfo(self.path_info(path).await?.map(Box::new)),
            Request::QueryMissing { .. } => Answer::Missing(self.missing().await?),
            Request::QueryDerivationOutputs { .. } => Answer::OutputPaths(self.output_paths().await?),
            Request::QueryDerivationOutputMap { .. } => Answer::Outputs(self.outputs().await?),
            Request::QueryRealisation { .. } => Answer::Realisation(self.realisation().await?),
            Request::NarFromPath { .. } => Answer::Nar(self.nar().await?),
        })
    }

    async fn messages(&mut self) -> Result<(), AnswerError> {
        read_messages(self.reader, self.daemon.version, Pulling::No, &mut self.sink).await
    }

    /// The answer to AddToStoreNar and AddMultipleToStore.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] with the reason; [`AnswerError::Broken`].
    pub async fn added(&mut self) -> Result<(), AnswerError> {
        let version = self.daemon.version;
        let pulling = if version < Version::FRAMES { Pulling::Yes } else { Pulling::No };
        read_messages(self.reader, version, pulling, &mut self.sink).await
    }

    /// The answer to EnsurePath, AddTempRoot, AddTempRoots, AddIndirectRoot and AddSignatures.
    ///
    /// # Errors
    /// [`AnswerError::Refused`], [`AnswerError::Broken`].
    pub async fn done(&mut self) -> Result<(), AnswerError> {
        self.messages().await?;
        match self.reader.u64("the daemon's answer").await? {
            1 => Ok(()),
            found => {
                let (what, expected) = ("the daemon's answer", "1");
                Err(ProtocolError::Unexpected { what, expected, found }.into())
            }
        }
    }

    /// The answer to AddPermRoot, which repeats the link.
    async fn root(&mut self, link: &str) -> Result<(), AnswerError> {
        self.messages().await?;
        let what = "the link of a root";
        let limit = link.len() as u64;
        if self.reader.string(what, limit).await? == link {
            Ok(())
        } else {
            Err(ProtocolError::Unasked { path: link.to_owned() }.into())
        }
    }

    /// The answer to IsValidPath.
    ///
    /// # Errors
    /// [`AnswerError::Refused`], [`AnswerError::Broken`].
    pub async fn is_valid(&mut self) -> Result<bool, AnswerError> {
        self.messages().await?;
        Ok(self.reader.u64("whether a path is valid").await? != 0)
    }

    /// The answer to QueryValidPaths and to QuerySubstitutablePaths.
    ///
    /// # Errors
    /// [`AnswerError::Refused`]; [`AnswerError::Broken`], also for a path that was not `asked` for.
    pub async fn paths(&mut self, asked: &StorePathSet) -> Result<BTreeSet<StorePath>, AnswerError> {
        self.messages().await?;
        Ok(read_valid_paths(self.reader, self.store_dir, asked).await?)
    }

    /// The answer to QueryPathInfo; `None` if the path is not valid.
    ///
    /// # Errors
    /// [`AnswerError::Refused`], [`AnswerError::Broken`].
    pub async fn path_info(&mut self, path: &StorePath) -> Result<Option<PathInfo>, AnswerError> {
        self.messages().await?;
        self.reader.begin(MESSAGE_LIMIT);
        if self.reader.u64("whether a path is valid").await? == 0 {
            return Ok(None);
        }
        Ok(Some(read_metadata(self.reader, self.store_dir, path.clone()).await?))
    }

    /// The answer to QueryMissing.
    ///
    /// # Errors
    /// [`AnswerError::Refused`], [`AnswerError::Broken`].
    pub async fn missing(&mut self) -> Result<Missing, AnswerError> {
        self.messages().await?;
        let mut sets = [const { BTreeSet::new() }; 3];
        for set in &mut sets {
            set.extend(self.reader.paths("the missing paths", self.store_dir).await?.iter().cloned());
        }
        let [build, substitute, unknown] = sets;
        let download_size = self.reader.u64("the download size").await?;
        let nar_size = self.reader.u64("the NAR size").await?;
        Ok(Missing { build, substitute, unknown, download_size, nar_size })
    }

    /// The answer to QueryDerivationOutputs.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if the derivation is not valid; [`AnswerError::Broken`].
    pub async fn output_paths(&mut self) -> Result<BTreeSet<StorePath>, AnswerError> {
        self.messages().await?;
        Ok(self.reader.paths("the outputs of a derivation", self.store_dir).await?.iter().cloned().collect())
    }

    /// The answer to QueryDerivationOutputMap.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if the derivation is not valid; [`AnswerError::Broken`].
    pub async fn outputs(&mut self) -> Result<BTreeMap<String, Option<StorePath>>, AnswerError> {
        self.messages().await?;
        self.reader.begin(MESSAGE_LIMIT);
        let mut outputs = BTreeMap::new();
        for _ in 0..self.reader.count_up_to("the outputs of a derivation", OUTPUT_LIMIT).await? {
            let name = self.reader.string("the name of an output", OUTPUT_NAME_LIMIT).await?;
            outputs.insert(name, self.reader.optional_path("an output", self.store_dir).await?);
        }
        Ok(outputs)
    }

    /// The answer to QueryRealisation.
    ///
    /// # Errors
    /// [`AnswerError::Refused`], [`AnswerError::Broken`].
    pub async fn realisation(&mut self) -> Result<Option<Realisation>, AnswerError> {
        self.messages().await?;
        Ok(Realisation::read_answer(self.reader, self.store_dir, self.daemon).await?)
    }

    /// The answer to NarFromPath: the NAR is to be read, to its end, before the next answer.
    ///
    /// # Errors
    /// [`AnswerError::Broken`]. A path that is not valid is an error of the first [`NarReader::next`].
    pub async fn nar(&mut self) -> Result<NarReader, AnswerError> {
        self.messages().await?;
        Ok(NarReader::new(self.daemon.version))
    }
}
