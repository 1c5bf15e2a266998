//! A store with paths that it has and cannot describe.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_protocol::{
    serve::{
        Request, ServeError, Server, Writing, client_greeting, read_closure, read_path_infos,
        read_server_greeting,
    },
    wire::WireReader,
};
use ncc_store::{
    Closure, Destination, NarPlan, NarSource, OnFailure, Outcomes, Outputs, PathInfo, Problem, Side, Source,
    StoreDir, StoreError, StorePath, StorePathSet, ValidityQuery, test_util::MemoryStore,
};

/// Where the rows of some paths are damaged: whoever asks for one of them gets an error and nothing else, and a closure lists
/// them among what failed.
struct OddRows {
    store: MemoryStore,
    odd: BTreeSet<StorePath>,
}

impl OddRows {
    fn error(path: &StorePath) -> StoreError {
        let problem = Problem::Path { action: "describe", path: path.clone(), source: "odd hash".into() };
        StoreError::new(Side::Source, "ours", problem)
    }
}

impl Source for OddRows {
    fn name(&self) -> &str {
        Source::name(&self.store)
    }

    fn store_dir(&self) -> &StoreDir {
        Source::store_dir(&self.store)
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let mut closure = self.store.closure(roots, outputs).await?;
            let (odd, infos) = closure.infos.into_iter().partition(|info| self.odd.contains(&info.path));
            closure.infos = infos;
            let odd: Vec<PathInfo> = odd;
            closure.failed.extend(odd.into_iter().map(|info| (info.path.clone(), Self::error(&info.path))));
            Ok(closure)
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        match paths.iter().find(|path| self.odd.contains(*path)) {
            Some(path) => Box::pin(std::future::ready(Err(Self::error(path)))),
            None => self.store.path_infos(paths),
        }
    }

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        self.store.nars(plan)
    }
}

impl Destination for OddRows {
    fn name(&self) -> &str {
        Destination::name(&self.store)
    }

    fn store_dir(&self) -> &StoreDir {
        Destination::store_dir(&self.store)
    }

    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        self.store.valid_paths(paths, query)
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        self.store.add_all(plan, nars, on_failure)
    }
}

fn ask(store: &OddRows, requests: &[Request]) -> (Vec<u8>, Result<(), ServeError>) {
    let mut bytes = client_greeting();
    for request in requests {
        request.encode(&StoreDir::default(), &mut bytes);
    }
    let mut reply = Vec::new();
    let server = Server::new(&bytes[..], &mut reply, store, Writing::Refused);
    let end = server.run().now_or_never().expect("it waits for nothing");
    (reply, end)
}

/// <https://github.com/NixOS/nix/issues/6843>, where upstream's server ends with an error.
#[test]
fn r6843_a_path_that_cannot_be_described_is_left_out_and_stops_no_other() {
    let memory = MemoryStore::new("ours");
    let chain = memory.add_chain(9);
    // One at each end, and two neighbours.
    let odd: BTreeSet<_> = [0, 4, 5, 8].map(|number| chain[number].clone()).into();
    let store = OddRows { store: memory, odd: odd.clone() };
    let all: StorePathSet = chain.iter().cloned().collect();
    let top = vec![chain[8].clone()];
    let (reply, end) = ask(
        &store,
        &[
            Request::QueryClosure { outputs: Outputs::Exclude, paths: top.clone() },
            Request::QueryPathInfos { paths: all.clone().into_vec() },
            Request::QueryPathInfos { paths: top },
            Request::QueryPathInfos { paths: Vec::new() },
        ],
    );
    end.unwrap();
    let store_dir = StoreDir::default();
    let mut reader = WireReader::new(&reply[..]);
    read_server_greeting(&mut reader).now_or_never().unwrap().unwrap();
    let closure = read_closure(&mut reader, &store_dir).now_or_never().unwrap().unwrap();
    assert_eq!(closure, all);
    let mut described = || {
        let infos = read_path_infos(&mut reader, &store_dir, &all).now_or_never().unwrap().unwrap();
        infos.into_iter().map(|info| info.path).collect::<BTreeSet<_>>()
    };
    assert_eq!(described(), chain.into_iter().filter(|path| !odd.contains(path)).collect());
    assert!(described().is_empty() && described().is_empty());
}

/// As upstream's: an answer would be taken for the closure of all that was asked for.
#[test]
fn a_closure_of_what_is_not_valid_ends_the_conversation() {
    let memory = MemoryStore::new("ours");
    let good = memory.add("good", "x", &[]);
    let gone = memory.add("gone", "x", &[]);
    memory.delete(&gone);
    let store = OddRows { store: memory, odd: BTreeSet::new() };
    let request = Request::QueryClosure { outputs: Outputs::Exclude, paths: vec![good, gone.clone()] };
    let (_, end) = ask(&store, &[request]);
    let text = end.unwrap_err().to_string();
    assert!(text.contains(gone.base_name()) && text.contains("is not valid"), "{text}");
}
