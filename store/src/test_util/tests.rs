use futures_core::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

use super::{conformance::Fixture, *};
use crate::{Destination as _, NarHash, OnFailure, Outcome, Scope, Source as _, StorePathSet};

fn copy(from: &MemoryStore, to: &MemoryStore, paths: &[StorePath]) -> Vec<Result<Outcome, StoreError>> {
    copy_on_failure(from, to, paths, OnFailure::Continue)
}

fn copy_on_failure(
    from: &MemoryStore,
    to: &MemoryStore,
    paths: &[StorePath],
    on_failure: OnFailure,
) -> Vec<Result<Outcome, StoreError>> {
    let plan = from.infos(paths);
    let nars = from.nars(plan.clone());
    to.add_all(plan, nars, on_failure).collect::<Vec<_>>().now_or_never().expect("memory is always ready")
}

fn refusal(outcome: &Result<Outcome, StoreError>) -> Option<String> {
    let (Err(error) | Ok(Outcome::Failed { error, .. })) = outcome else { return None };
    std::error::Error::source(error).map(ToString::to_string)
}

fn closure(store: &MemoryStore, roots: &[StorePath], outputs: Outputs) -> Result<Vec<StorePath>, StoreError> {
    let closure = store.closure(roots, outputs).now_or_never().expect("memory is always ready")?;
    Ok(closure.complete()?.into_iter().map(|info| info.path).collect())
}

struct Memory(NarAccess);

impl Fixture for Memory {
    type Store = MemoryStore;

    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, MemoryStore> {
        let store = MemoryStore::new("a store in memory").with_block_size(16 << 10).with_access(self.0);
        for path in objects.paths() {
            store.insert(objects.info(&path).unwrap(), objects.nar(&path).unwrap());
            let closure = objects.closure(std::slice::from_ref(&path), Outputs::Include);
            if path.is_derivation() {
                let outputs = closure.now_or_never().unwrap().unwrap().infos;
                let outputs: Vec<_> =
                    outputs.into_iter().map(|info| info.path).filter(|p| *p != path).collect();
                store.declare_outputs(&path, &outputs);
            }
        }
        std::future::ready(store).boxed()
    }

    fn reopen(&self, store: &MemoryStore) -> MemoryStore {
        store.clone()
    }
}

#[test]
fn it_does_what_every_store_must() {
    for access in [NarAccess::Sequential, NarAccess::Random { at_once: 3 }] {
        let memory = Memory(access);
        conformance::check_source(&memory).now_or_never().unwrap();
        conformance::check_destination(&memory).now_or_never().unwrap();
    }
}

#[test]
fn fixtures_are_the_paths_that_nix_makes() {
    let store = MemoryStore::new("a");
    // What four versions of Nix made of these.
    let path = store.add("foo.txt", "hello\n", &[]);
    assert_eq!(path.base_name(), "0xhahvdjiaq1nm0nr46qyn4j6l9n9cns-foo.txt");
    let a = store.add_text("a", "aaa", &[]);
    assert_eq!(a.base_name(), "mwq47shl5x56hf8wz24fkh24l9ckb0bp-a");
    let see = format!("see {}", store.store_dir.full(&a));
    let b = store.add_text("b", see, &[a]);
    assert_eq!(b.base_name(), "yby6ddzz7f3708s7k5kxji0aq0i82mfj-b");
    for path in [path, b] {
        assert!(store.info(&path).unwrap().content_address_gives_path(&store.store_dir));
    }
}

#[test]
fn the_content_of_a_file_comes_back_out_of_its_nar() {
    for length in [0, 1, 7, 8, 9, 200] {
        let content = vec![b'x'; length];
        let nar = file_nar(&content);
        assert_eq!(file_content(&nar), Some(content.as_slice()));
        for cut in 0..nar.len() {
            assert_eq!(file_content(&nar[..cut]), None, "cut at {cut} of {}", nar.len());
        }
    }
}

#[test]
fn a_second_nar_waits_for_the_first_body() {
    let store = MemoryStore::new("a");
    let chain = store.add_chain(2);
    let plan = store.infos(&chain);
    let nars = store.nars(plan.clone());
    let first = nars.open(&plan[0], 0).now_or_never().unwrap().unwrap();
    assert!(nars.open(&plan[1], 0).now_or_never().is_none());
    drop(first);
    assert!(nars.open(&plan[1], 0).now_or_never().unwrap().is_ok());
}

#[test]
fn a_reference_that_is_not_valid_ends_the_import() {
    let from = MemoryStore::new("a");
    let chain = from.add_chain(3);
    let to = MemoryStore::new("b");
    let outcomes = copy(&from, &to, &chain[1..]);
    assert_eq!(outcomes.len(), 1);
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Reference(chain[0].clone()).to_string()));
    assert!(to.paths().is_empty());
}

#[test]
fn what_came_before_an_error_is_safe_and_nothing_after_it() {
    let from = MemoryStore::new("a");
    let chain = from.add_chain(4);
    let to = MemoryStore::new("b");
    to.inject(Fault::FailAfterAdds(2));
    let outcomes = copy(&from, &to, &chain);
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes[2].is_err());
    let mut safe = chain[..2].to_vec();
    safe.sort();
    assert_eq!(to.paths(), safe);
    to.heal();
    assert!(copy(&from, &to, &chain).iter().all(Result::is_ok));
}

#[test]
fn lies_about_the_content_are_noticed_before_it_is_sent() {
    let from = MemoryStore::new("a");
    let path = from.add("x", "some content", &[]);
    let size = from.info(&path).unwrap().nar_size;
    let cases = [
        (Fault::CorruptContent(path.clone()), "NAR hash is".to_owned()),
        (Fault::TruncateContent(path.clone(), 8), format!("NAR has 8 bytes, recorded are {size}")),
        (Fault::ExtendContent(path.clone(), 8), format!("NAR has {} bytes, recorded are {size}", size + 8)),
        (Fault::FailReading(path.clone(), 8), "could not read".to_owned()),
    ];
    for (fault, expected) in cases {
        from.heal();
        from.inject(fault);
        let to = MemoryStore::new("b");
        let outcomes = copy(&from, &to, std::slice::from_ref(&path));
        // Small ones do not even begin.
        let [Ok(Outcome::Failed { error, .. })] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!((error.side(), error.scope()), (Side::Source, Scope::Path));
        assert!(to.paths().is_empty());
    }
}

#[test]
fn lies_in_the_metadata_end_the_import() {
    type Lie = fn(&mut PathInfo);
    let cases: [(Lie, Refusal); 2] = [
        (
            |info| info.content_address = Some(format!("fixed:r:{}", NarHash::new([0; 32])).parse().unwrap()),
            Refusal::ContentAddress,
        ),
        (|info| info.references = StorePathSet::from_iter([info.path.clone()]), Refusal::ContentAddress),
    ];
    for (lie, expected) in cases {
        let from = MemoryStore::new("a");
        let path = from.add("x", "some content", &[]);
        from.change(&path, lie);
        let outcomes = copy(&from, &MemoryStore::new("b"), &[path]);
        assert_eq!(refusal(&outcomes[0]), Some(expected.to_string()));
    }
}

#[test]
fn content_that_is_not_what_its_address_says_ends_the_import() {
    let from = MemoryStore::new("a");
    let path = from.add_text("x", "honest", &[]);
    let mut info = from.info(&path).unwrap();
    let nar = file_nar(b"forged");
    info.nar_hash = NarHash::of(&nar);
    from.insert(info, nar);
    let outcomes = copy(&from, &MemoryStore::new("b"), &[path]);
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::ContentAddressHash.to_string()));
}

#[test]
fn a_failure_before_the_first_block_leaves_the_others_alone() {
    let from = MemoryStore::new("a");
    let chain = from.add_chain(2);
    let other = from.add("other", "x", &[]);
    let all = [chain[0].clone(), chain[1].clone(), other.clone()];
    let refusing = MemoryStore::new("b");
    refusing.inject(Fault::RefusePath(chain[0].clone()));
    let outcomes = copy(&from, &refusing, &all);
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Injected.to_string()));
    // What refers to it is passed over.
    assert!(matches!(&outcomes[1..], [Ok(Outcome::Added(path))] if *path == other), "{outcomes:?}");
    assert_eq!(refusing.paths(), std::slice::from_ref(&other));
    let stopping = MemoryStore::new("b");
    stopping.inject(Fault::RefusePath(chain[0].clone()));
    assert_eq!(copy_on_failure(&from, &stopping, &all, OnFailure::Stop).len(), 1);
    assert!(stopping.paths().is_empty());

    from.inject(Fault::FailReading(chain[0].clone(), 0));
    let to = MemoryStore::new("b");
    let outcomes = copy(&from, &to, &all);
    assert!(matches!(&outcomes[0], Ok(Outcome::Failed { path, .. }) if *path == chain[0]));
    assert_eq!(to.paths(), [other]);
}

#[test]
fn a_path_can_be_said_to_be_added_and_be_missing() {
    let from = MemoryStore::new("a");
    let path = from.add("x", "x", &[]);
    let to = MemoryStore::new("b");
    to.inject(Fault::ForgetPath(path.clone()));
    assert!(matches!(copy(&from, &to, &[path]).as_slice(), [Ok(Outcome::Added(_))]));
    assert!(to.paths().is_empty());
}

#[test]
fn substitutes_come_with_their_references_or_not_at_all() {
    let cache = MemoryStore::new("cache");
    let chain = cache.add_chain(3);
    let to = MemoryStore::new("b");
    to.offer_substitutes(&cache, &chain[..2]);
    let ask = |query| {
        let asked = [chain[2].clone(), chain[1].clone()];
        to.valid_paths(&asked, query).now_or_never().unwrap().unwrap()
    };
    let lock = ValidityQuery::default().locking();
    assert!(ask(lock).is_empty());
    assert_eq!(ask(lock.substituting(true)), BTreeSet::from([chain[1].clone()]));
    let mut expected = chain[..2].to_vec();
    expected.sort();
    assert_eq!(to.paths(), expected);
    to.offer_substitutes(&cache, &chain);
    assert_eq!(ask(ValidityQuery::default().substituting(true)).len(), 2);
    let flags: Vec<_> = to
        .calls()
        .into_iter()
        .map(|call| match call {
            Call::ValidPaths { query, .. } => (query.lock, query.substitute),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(flags, [(true, false), (true, true), (false, true)]);
}

#[test]
fn closures_follow_references_and_on_request_outputs() {
    let store = MemoryStore::new("a");
    let chain = store.add_chain(2);
    let built = store.add_output("x", "built", &chain);
    let derivation = store.add("x.drv", "not parsed here", &[]);
    let missing = StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-missing").unwrap();
    store.declare_outputs(&derivation, &[built.clone(), missing.clone()]);

    let roots = [derivation];
    assert_eq!(closure(&store, &roots, Outputs::Exclude).unwrap(), roots);
    assert_eq!(closure(&store, &roots, Outputs::Include).unwrap(), store.paths());
    let error = closure(&store, std::slice::from_ref(&missing), Outputs::Exclude).unwrap_err();
    assert!(matches!(error.problem(), Problem::NotValid { .. }), "{error}");
    store.delete(&chain[0]);
    assert!(closure(&store, &[built], Outputs::Exclude).is_err());
}

#[test]
fn a_path_that_is_not_valid_cannot_be_opened() {
    let store = MemoryStore::new("a");
    let chain = store.add_chain(3);
    let plan = store.infos(&chain);
    store.delete(&chain[1]);
    let nars = store.nars(plan.clone());
    let error = nars.open(&plan[1], 0).now_or_never().unwrap().unwrap_err();
    assert!(matches!(error.problem(), Problem::NotValid { .. }));
}

#[test]
fn derivations_come_with_their_outputs_and_only_after_their_inputs() {
    let from = MemoryStore::new("a");
    let source = from.add("source", "code", &[]);
    let library = from.add_derivation("library", &["out", "dev"], std::slice::from_ref(&source));
    let program = from.add_derivation("program", &["out"], &[library.clone(), source.clone()]);
    let [dev, out] = from.build(&library, &[]).try_into().unwrap();
    assert_eq!((dev.name(), out.name()), ("library-dev", "library"));
    let built = from.build(&program, std::slice::from_ref(&out)).remove(0);
    assert_eq!(from.info(&built).unwrap().deriver, Some(program.clone()));

    let to = MemoryStore::new("b");
    assert!(copy(&from, &to, &from.paths()).iter().all(|outcome| matches!(outcome, Ok(Outcome::Added(_)))));
    // The other store learnt what they make.
    let roots = std::slice::from_ref(&program);
    let mut recipes = vec![source, library, program.clone()];
    recipes.sort();
    assert_eq!(closure(&to, roots, Outputs::Exclude).unwrap(), recipes);
    assert_eq!(closure(&to, roots, Outputs::Include).unwrap(), from.paths());

    // Without the reference nothing but the check of the outputs needs the input.
    from.change(&program, |info| {
        info.references = StorePathSet::default();
        info.content_address = None;
    });
    let outcomes = copy(&from, &MemoryStore::new("c"), &[program]);
    assert_eq!(refusal(&outcomes[0]).unwrap(), "the derivation is wrong");
}

#[test]
fn what_is_called_a_derivation_must_be_one() {
    let from = MemoryStore::new("a");
    let cases = [
        (from.add_text("x.drv", "hello", &[]), "error parsing derivation"),
        (from.add_text("x.drv", "Derive([],[],[],\"\",\"\",[],[])", &[]), "the derivation is wrong"),
    ];
    for (path, reason) in cases {
        let outcomes = copy(&from, &MemoryStore::new("b"), std::slice::from_ref(&path));
        assert!(outcomes[0].is_err());
        assert_eq!(refusal(&outcomes[0]).unwrap(), reason);
    }
    let path = from.add("x.drv", "", &[]);
    let nar = b"no archive at all".to_vec();
    from.change(&path, |info| {
        info.content_address = None;
        info.nar_hash = NarHash::of(&nar);
        info.nar_size = nar.len() as u64;
    });
    from.insert(from.info(&path).unwrap(), nar);
    let outcomes = copy(&from, &MemoryStore::new("b"), &[path]);
    assert_eq!(refusal(&outcomes[0]).unwrap(), Refusal::DerivationFile.to_string());
}
