//! Objects in: what is stored, what is refused, and what is left behind.

use std::{fs, os::unix::fs::MetadataExt as _, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ncc_local_store::{Added, LocalStoreConfig};
use ncc_store::{
    Destination as _, HashAlgorithm, Hasher, Nar, NarBody, NarHash, NarPlan, Outcome, Outputs, PathInfo,
    Problem, Scope, SecretKey, Side, Source as _, StoreError, StorePath, ValidityQuery, sequential_nars,
    test_util::{MemoryStore, file_nar, script, script_of_bodies},
};
use rstest::rstest;

use crate::support::*;

#[tokio::test]
async fn a_closure_goes_from_store_to_store_unchanged() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let memory = MemoryStore::new("memory");
    let library = memory.add("library", "code", &[]);
    let program = memory.add_self_referring("program", &[library.clone()]);
    let nar = tree_nar(b"#!/bin/sh\n");
    let mut tree = output("tree", &nar);
    tree.references = [library.clone(), program.clone()].into_iter().collect();
    tree.deriver = Some(memory.add_text("tree.drv.txt", "x", &[]));
    tree.registration_time = 1234;
    for seed in [2, 1] {
        let key = SecretKey::from_seed(&format!("key-{seed}"), &[seed; 32]).unwrap();
        tree.sign(&ncc_store::StoreDir::default(), &key);
    }
    memory.insert(tree.clone(), nar);
    fill(&a.store(), &memory).await;

    // Each time from disk, as nothing was left open.
    let (from, to) = (a.store(), b.store());
    let closure = from.closure(&[tree.path.clone()], Outputs::Exclude).await.unwrap().complete().unwrap();
    assert_eq!(closure.iter().map(|info| &info.path).collect::<Vec<_>>(), {
        let mut all = vec![&library, &program, &tree.path];
        all.sort();
        all
    });
    assert!(closure.contains(&tree));
    let plan = memory.infos(&[library, program, tree.path.clone()]);
    let outcomes: Vec<_> = add_from(&to, &from, plan).collect().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Added(_)))), "{outcomes:?}");
    assert_eq!(to.query_closure(&[tree.path.clone()], Outputs::Exclude).unwrap(), closure);
    assert_eq!(assert_sound(&to), 3);

    let real = to.real_path(&tree.path);
    for (name, mode) in
        [("", 0o555), ("bin/run", 0o555), ("empty", 0o444), ("hollow", 0o555), ("link", 0o777)]
    {
        let metadata = fs::symlink_metadata(real.join(name)).unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()),
            (mode, 1, 0),
            "{name}"
        );
    }
    assert_eq!(fs::read(real.join("link")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(on_disk(&to).len(), 3, "no locks stay: {:?}", on_disk(&to));
}

#[tokio::test]
async fn rows_are_those_of_nix() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let mut info = output("x", &nar);
    info.references = [info.path.clone()].into_iter().collect();
    info.ultimate = true;
    let [b, a] = [("b", 1), ("a", 2)].map(|(name, seed)| SecretKey::from_seed(name, &[seed; 32]).unwrap());
    info.sign(store.store_dir(), &b);
    info.sign(store.store_dir(), &a);
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert_eq!(store.add_nar(&info, &mut &nar[..]).unwrap(), Added::New);
    assert_eq!(
        rows(&store, "select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths"),
        [format!(
            "{}|sha256:{}||{}|1|{} {}|",
            full(&info.path),
            NarHash::of(&nar).to_base16(),
            nar.len(),
            info.signatures[0],
            info.signatures[1]
        )]
    );
    let time: u64 = rows(&store, "select registrationTime from ValidPaths")[0].parse().unwrap();
    assert!((before..before + 60).contains(&time));
    assert_eq!(rows(&store, "select referrer, reference from Refs"), ["1|1"]);

    let plain = file_nar(b"plain");
    store.add_nar(&output("plain", &plain), &mut &plain[..]).unwrap();
    assert_eq!(
        rows(
            &store,
            "select ultimate is null, sigs is null, ca is null, deriver is null from ValidPaths where id = 2"
        ),
        ["1|1|1|1"]
    );
}

#[tokio::test]
async fn a_valid_path_stays_as_it_is_whatever_comes() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    let info = output("x", &nar);
    store.add_nar(&info, &mut &nar[..]).unwrap();
    let garbage = add_one(&store, info.clone(), vec![Ok(Bytes::from_static(b"garbage"))]).await;
    assert!(matches!(garbage, Ok(Outcome::AlreadyValid(path)) if path == info.path));
    assert_eq!(store.add_nar(&info, &mut &b"garbage"[..]).unwrap(), Added::AlreadyValid);
    assert_eq!(assert_sound(&store), 1);
    assert_eq!(on_disk(&store), [info.path.base_name()]);
}

#[tokio::test]
async fn leftovers_make_way() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    let info = output("x", &nar);
    fs::create_dir(store.real_path(&info.path)).unwrap();
    fs::write(store.real_path(&info.path).join("half"), "half").unwrap();
    fs::write(store.real_store_dir().join(format!("{}.lock", info.path)), "").unwrap();
    store.add_nar(&info, &mut &nar[..]).unwrap();
    assert_eq!(assert_sound(&store), 1);
    assert_eq!(on_disk(&store), [info.path.base_name()]);
}

fn broken_body() -> Result<Bytes, StoreError> {
    let path = StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-x").unwrap();
    let problem = Problem::Path { action: "read", path, source: "it burns".into() };
    Err(StoreError::new(Side::Source, "the source", problem))
}

#[rstest]
#[case::other_content(|nar: &[u8]| whole(&[&nar[..96], b"BAD!", &nar[100..]].concat()), "NAR hash is")]
#[case::empty_body(|_: &[u8]| vec![], "NAR has 0 bytes, recorded are 120")]
#[case::truncated(|nar: &[u8]| whole(&nar[..100]), "NAR has 100 bytes, recorded are 120")]
#[case::too_long(|nar: &[u8]| whole(&[nar, b"more"].concat()), "NAR has 124 bytes, recorded are 120")]
#[case::endless(|nar: &[u8]| vec![Ok(nar.to_vec().into()), Ok(vec![0; 1 << 20].into())], "recorded are 120")]
#[case::no_archive(|_: &[u8]| whole(&[1; 120]), "is no canonical archive: malformed archive at byte 0")]
#[case::fails_at_once(|_: &[u8]| vec![broken_body()], "the source could not read 'nlhn6cma43vk5l44cgr8sw3ykiir1wmm-x': it burns")]
#[case::fails_later(|nar: &[u8]| vec![Ok(nar[..50].to_vec().into()), broken_body()], "the source could not read")]
#[tokio::test]
async fn a_bad_body_fails_its_path_alone(
    #[case] body: fn(&[u8]) -> Vec<Result<Bytes, StoreError>>,
    #[case] expected: &str,
) {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    let (before, bad, after) = (output("before", &nar), output("bad", &nar), output("after", &nar));
    let nars =
        script([(before.clone(), whole(&nar)), (bad.clone(), body(&nar)), (after.clone(), whole(&nar))]);
    let mut outcomes: Vec<_> = add_script(&store, nars).collect().await;
    assert_eq!(outcomes.len(), 3);
    assert!(matches!(&outcomes[0], Ok(Outcome::Added(path)) if *path == before.path));
    assert!(matches!(&outcomes[2], Ok(Outcome::Added(path)) if *path == after.path));
    let text = failure(outcomes.swap_remove(1));
    assert!(text.contains(expected), "{text}");
    assert_eq!(assert_sound(&store), 2);
    assert_eq!(on_disk(&store).len(), 2, "{:?}", on_disk(&store));
    // And the path can still be had.
    assert_eq!(store.add_nar(&bad, &mut &nar[..]).unwrap(), Added::New);
}

/// Seen from outside only if the check before was against something else than what is registered here.
#[tokio::test]
async fn a_body_is_hashed_once_here_or_by_whoever_verified_it_before() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    let right = Arc::new(output("x", &nar));
    let mut other = (*right).clone();
    other.nar_hash = NarHash::of(b"other");
    let other = Arc::new(other);
    let body = || NarBody::new(stream::iter(whole(&nar)));
    let add =
        |body: NarBody| add_script(&store, script_of_bodies([other.clone()], [body])).collect::<Vec<_>>();
    let unverified = add(body()).await.remove(0);
    assert!(failure(unverified).contains("NAR hash is"));
    // One that turns out wrong in the check before ends there.
    let refused = add(body().verified(&other, "the source")).await.remove(0);
    assert!(failure(refused).contains("the source does not match its metadata: NAR hash is"));
    assert_eq!(registered(&store), []);
    let verified = add(body().verified(&right, "the source")).await.remove(0);
    assert!(matches!(verified, Ok(Outcome::Added(_))), "{verified:?}");
}

#[tokio::test]
async fn an_announcement_with_the_wrong_size_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    for (size, expected) in [
        (nar.len() as u64 - 8, "NAR has 120 bytes, recorded are 112"),
        (nar.len() as u64 + 8, "NAR has 120 bytes, recorded are 128"),
    ] {
        let mut info = output("x", &nar);
        info.nar_size = size;
        let text = failure(add_one(&store, info, whole(&nar)).await);
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(on_disk(&store), [""; 0]);
}

/// Old databases do not know the sizes of all paths, and old hosts send 0 for them.
#[tokio::test]
async fn a_size_that_nobody_knows_is_found_out() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"good");
    let mut info = output("x", &nar);
    info.nar_size = 0;
    let truncated = add_one(&store, info.clone(), whole(&nar[..100])).await;
    assert!(failure(truncated).contains("is no canonical archive"));
    let other = add_one(&store, info.clone(), whole(&file_nar(b"other"))).await;
    assert!(failure(other).contains("NAR hash is"));
    assert!(matches!(add_one(&store, info.clone(), whole(&nar)).await, Ok(Outcome::Added(_))));
    assert_eq!(store.query_path_info(&info.path).unwrap().unwrap().nar_size, nar.len() as u64);
    assert_eq!(rows(&store, "select narSize from ValidPaths"), [nar.len().to_string()]);
}

#[tokio::test]
async fn references_must_be_valid_or_come_before() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let [missing, mut a, mut b, mut c, d] = ["missing", "a", "b", "c", "d"].map(|name| output(name, &nar));
    let mut last = output("last", &nar);
    // a needs what nobody has, b needs a, c needs itself and d, which comes after it, the last one needs d.
    a.references = [missing.path.clone()].into_iter().collect();
    b.references = [a.path.clone()].into_iter().collect();
    c.references = [c.path.clone(), d.path.clone()].into_iter().collect();
    last.references = [last.path.clone(), d.path.clone()].into_iter().collect();
    let nars = [&a, &b, &c, &d, &last].map(|info| (info.clone(), whole(&nar)));
    let outcomes: Vec<_> = add_script(&store, script(nars)).collect().await;
    // b follows a, so that nothing is said about it.
    assert_eq!(outcomes.len(), 4);
    let text: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Outcome::Added(path) => format!("added {}", path.name()),
            Outcome::Failed { error, .. } => chain(&error),
            other => panic!("{other:?}"),
        })
        .collect();
    for (text, reference) in text.iter().zip([&missing, &d]) {
        assert!(text.contains(&format!("refers to '{}', which is not valid", reference.path)), "{text:?}");
    }
    assert_eq!(text[2..], ["added d", "added last"]);
    assert_eq!(assert_sound(&store), 2);
    assert_eq!(on_disk(&store).len(), 2);
}

#[tokio::test]
async fn who_waits_for_each_answer_gets_it() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let infos: Vec<_> = (0..22).map(|number| Arc::new(output(&format!("x-{number:02}"), &nar))).collect();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let nars = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|nar| (Ok(nar), receiver))
    });
    let nars = sequential_nars("a slow source", nars.boxed());
    let mut outcomes = add_script(&store, (infos.clone().into(), nars));
    let send = |info: &Arc<PathInfo>, body| sender.send(Nar { info: info.clone(), body }).unwrap();
    let whole_body = || NarBody::new(stream::iter(whole(&nar)));
    for info in &infos[..20] {
        send(info, whole_body());
        let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), outcomes.next()).await;
        assert!(matches!(outcome, Ok(Some(Ok(Outcome::Added(path)))) if path == info.path));
    }
    // A body that stalls does not keep the answer of the one before.
    let (first, second) = (&infos[20], &infos[21]);
    let (blocks, mut pending) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, StoreError>>();
    send(first, whole_body());
    send(second, NarBody::new(stream::poll_fn(move |context| pending.poll_recv(context))));
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(20), outcomes.next()).await;
    assert!(matches!(outcome, Ok(Some(Ok(Outcome::Added(path)))) if path == first.path));
    // And when everything is dropped in the middle, the half object goes away.
    blocks.send(Ok(nar[..50].to_vec().into())).unwrap();
    drop((outcomes, blocks, sender));
    for _ in 0..1000 {
        if on_disk(&store).len() == 21 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(on_disk(&store).len(), 21, "{:?}", on_disk(&store));
    assert_eq!(assert_sound(&store), 21);
}

fn digest(algorithm: HashAlgorithm, bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(algorithm).unwrap();
    hasher.update(bytes);
    hasher.finish().to_string()
}

#[rstest]
#[case::text("text:", HashAlgorithm::Sha256, false)]
#[case::flat_md5("fixed:", HashAlgorithm::Md5, false)]
#[case::flat_sha1("fixed:", HashAlgorithm::Sha1, false)]
#[case::flat_sha256("fixed:", HashAlgorithm::Sha256, false)]
#[case::flat_sha512("fixed:", HashAlgorithm::Sha512, false)]
#[case::recursive_md5("fixed:r:", HashAlgorithm::Md5, true)]
#[case::recursive_sha1("fixed:r:", HashAlgorithm::Sha1, true)]
#[case::recursive_sha256("fixed:r:", HashAlgorithm::Sha256, true)]
#[case::recursive_sha512("fixed:r:", HashAlgorithm::Sha512, true)]
#[tokio::test]
async fn content_addresses_are_verified(
    #[case] prefix: &str,
    #[case] algorithm: HashAlgorithm,
    #[case] recursive: bool,
) {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"content");
    let claim = |content: &[u8]| {
        let nar = file_nar(content);
        format!("{prefix}{}", digest(algorithm, if recursive { &nar } else { content }))
    };
    let good = claimed("good", &claim(b"content"), &nar);
    assert!(matches!(add_one(&store, good.clone(), whole(&nar)).await, Ok(Outcome::Added(_))));
    assert_eq!(store.query_path_info(&good.path).unwrap().unwrap().content_address, good.content_address);

    let bad = claimed("bad", &claim(b"other"), &nar);
    let text = failure(add_one(&store, bad, whole(&nar)).await);
    assert!(text.contains("its content address") && text.contains("says otherwise"), "{text}");

    let mut elsewhere = output("elsewhere", &nar);
    elsewhere.content_address = good.content_address;
    let text = failure(add_one(&store, elsewhere, whole(&nar)).await);
    assert!(text.contains("which does not give this path"), "{text}");

    if !recursive {
        let tree = tree_nar(b"content");
        let text = failure(add_one(&store, claimed("tree", &claim(b"content"), &tree), whole(&tree)).await);
        assert!(text.contains("is not a regular file"), "{text}");
    }
    assert_eq!(on_disk(&store), [good.path.base_name()]);
}

#[rstest]
#[case::git("fixed:git:sha1:kpcd173cq987hw957sx6m0868wv3x6d9", "git hashing")]
#[case::blake3("fixed:r:blake3:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw", "blake3")]
#[tokio::test]
async fn what_cannot_be_verified_is_refused(#[case] claim: &str, #[case] expected: &str) {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let text = failure(add_one(&store, claimed("x", claim, &nar), whole(&nar)).await);
    assert!(text.contains(&format!("cannot be verified: {expected} is not supported")), "{text}");
}

/// Objects that contain their own digest hash in two ways, depending on the Nix that made them.
#[rstest]
#[case::places_left_out(false)]
#[case::places_counted(true)]
#[tokio::test]
async fn self_references_are_verified_in_both_variants(#[case] with_offsets: bool) {
    let scratch = Scratch::new();
    let store = scratch.store();
    let other = MemoryStore::new("memory");
    let library = other.add("library", "code", &[]);
    fill(&store, &other).await;

    let nar_with = |digest: &[u8]| file_nar(&[b"see ".as_slice(), digest, b" and ", digest, b"."].concat());
    let mut hasher = Hasher::new(HashAlgorithm::Sha256).unwrap();
    hasher.update(&nar_with(&[0; 32]));
    if with_offsets {
        hasher.update(b"|100|137");
    }
    let address =
        ncc_store::ContentAddress::new(ncc_store::ContentMethod::Recursive, hasher.finish()).unwrap();
    // The path follows from the references, among which it must not count as itself yet.
    let inner = NarHash::try_from(*address.hash()).unwrap();
    let kind = format!("source:{}:self", full(&library));
    let path = ncc_store::make_store_path(&kind, inner.as_bytes(), store.store_dir(), "me").unwrap();
    let nar = nar_with(path.digest().as_bytes());
    let mut info = ncc_store::PathInfo::new(path.clone(), NarHash::of(&nar), nar.len() as u64);
    info.references = [path.clone(), library].into_iter().collect();
    info.content_address = Some(address);
    assert!(matches!(add_one(&store, info.clone(), whole(&nar)).await, Ok(Outcome::Added(_))));

    let scratch = Scratch::new();
    let store = scratch.store();
    fill(&store, &other).await;
    let changed = nar_with(path.digest().as_bytes())
        .iter()
        .map(|b| if *b == b'.' { b'!' } else { *b })
        .collect::<Vec<_>>();
    info.nar_hash = NarHash::of(&changed);
    let text = failure(add_one(&store, info, whole(&changed)).await);
    assert!(text.contains("says otherwise"), "{text}");
}

#[test]
fn trees_are_added_with_references_and_only_once() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let library = scratch.path().join("library");
    let program = scratch.path().join("program");
    fs::write(&library, vec![7; 3 << 20]).unwrap();
    fs::create_dir(&program).unwrap();
    fs::write(program.join("run"), "x").unwrap();
    let library = store.add_tree("library", &library, []).unwrap();
    let info = store.add_tree("program", &program, [library.path.clone()]).unwrap();
    assert_eq!(info.references.as_slice(), [library.path.clone()]);
    assert!(info.content_address_gives_path(store.store_dir()));
    assert_eq!(store.add_tree("program", &program, [library.path]).unwrap(), info);
    assert_eq!(assert_sound(&store), 2);
    assert!(matches!(
        store.add_tree("no such", &program, []),
        Err(ncc_local_store::LocalStoreError::Name { .. })
    ));
    assert!(matches!(
        store.add_tree("x", &scratch.path().join("absent"), []),
        Err(ncc_local_store::LocalStoreError::Read { .. })
    ));
}

#[tokio::test]
async fn ten_thousand_paths() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let memory = MemoryStore::new("memory").with_block_size(1 << 16);
    let chain = memory.add_chain(10_000);
    let valid =
        store.valid_paths(&chain, ValidityQuery::default().locking().substituting(true)).await.unwrap();
    assert!(valid.is_empty());
    fill(&store, &memory).await;
    let closure = store.closure(&chain[9_999..], Outputs::Exclude).await.unwrap().complete().unwrap();
    assert_eq!(closure.len(), 10_000);
    let valid = store.valid_paths(&chain, ValidityQuery::default()).await.unwrap();
    assert_eq!(valid.len(), 10_000);

    // And out again, where only every second one is wanted.
    let plan: NarPlan = closure.into_iter().map(Arc::new).collect();
    let nars = store.nars(plan.clone());
    for info in plan.iter().step_by(2) {
        let body = nars.open(info, 0).await.unwrap();
        let bytes: Vec<Bytes> = body.map(Result::unwrap).collect().await;
        assert_eq!(NarHash::of(&bytes.concat()), info.nar_hash);
    }
}

#[tokio::test]
async fn bodies_are_dropped_early_and_missing_files_fail_alone() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let file = scratch.path().join("big");
    fs::write(&file, vec![7; 20 << 20]).unwrap();
    let big = Arc::new(store.add_tree("big", &file, []).unwrap());
    let nar = file_nar(b"x");
    let small = Arc::new(output("small", &nar));
    store.add_nar(&small, &mut &nar[..]).unwrap();
    let gone = Arc::new(output("gone", &nar));

    let second_big = Arc::new(store.add_tree("second-big", &file, []).unwrap());
    let nars = store.nars([big.clone(), gone.clone(), second_big.clone(), small.clone()].into());
    let mut first = nars.open(&big, 0).await.unwrap();
    assert!(!first.next().await.unwrap().unwrap().is_empty());
    drop(first);
    let mut second = nars.open(&gone, 0).await.unwrap();
    let error = second.next().await.unwrap().unwrap_err();
    assert_eq!((error.scope(), error.side()), (Scope::Path, Side::Source));
    let text = chain(&error);
    assert!(text.contains("could not read") && text.contains("-gone'"), "{text}");
    assert!(second.next().await.is_none());
    let third = nars.open(&second_big, 0).await.unwrap();
    let sizes: Vec<usize> = third.map(|block| block.unwrap().len()).collect().await;
    assert_eq!(sizes.iter().sum::<usize>() as u64, big.nar_size);
    assert!(sizes.iter().all(|size| *size <= 256 << 10), "{sizes:?}");
    let fourth: Vec<_> = nars.open(&small, 0).await.unwrap().collect().await;
    assert_eq!(fourth.len(), 1);

    // A body survives the source it came from, and may begin anywhere.
    for offset in [0, 1, 10 << 20, big.nar_size, big.nar_size + 1] {
        let body = store.nars([big.clone()].into()).open(&big, offset).await.unwrap();
        let size: usize =
            body.map(|block| block.unwrap().len()).fold(0, |sum, size| async move { sum + size }).await;
        assert_eq!(size as u64, big.nar_size.saturating_sub(offset));
    }
}

#[tokio::test]
async fn a_full_disk_ends_it_with_what_was_complete() {
    let scratch = Scratch::new();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(&disk)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        return left_out("cannot mount a small file system: a full disk was not tried");
    }
    let mut config = LocalStoreConfig::chroot(scratch.path());
    config.real_store_dir = disk.join("store");
    let store = ncc_local_store::LocalStore::open(config, ncc_local_store::Access::ReadWrite).unwrap();
    let (small, big) = (file_nar(b"x"), file_nar(&vec![7; 2 << 20]));
    let nars = script([
        (output("small", &small), whole(&small)),
        (output("big", &big), whole(&big)),
        (output("later", &small), whole(&small)),
    ]);
    let outcomes: Vec<_> = add_script(&store, nars).collect().await;
    let sound = assert_sound(&store);
    let left = on_disk(&store);
    drop(store);
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(outcomes.len(), 2);
    assert!(matches!(outcomes[0], Ok(Outcome::Added(_))));
    let text = chain(outcomes[1].as_ref().unwrap_err());
    assert!(
        text.contains("could not add") && text.contains("-big'") && text.contains("No space left"),
        "{text}"
    );
    assert_eq!((sound, left.len()), (1, 1), "{left:?}");
}
