use proptest::{collection, option, prelude::*, sample::select};
use rstest::rstest;

use super::*;
use crate::{Cause, NarHash};

fn store_dir() -> StoreDir {
    StoreDir::default()
}

fn path(seed: u8, name: &str) -> StorePath {
    StorePath::from_parts(&[seed; 20], name).unwrap()
}

#[rstest]
#[case::nothing("", 0)]
#[case::something_else("hello", 0)]
#[case::cut_in_the_head("Derive", 0)]
#[case::no_list("Derive(\"", 7)]
#[case::cut_in_a_string("Derive([(\"out", 13)]
#[case::cut_in_an_escape("Derive([(\"out\\", 14)]
#[case::output_without_hash("Derive([(\"out\",\"\",\"\")],", 20)]
#[case::no_environment("Derive([],[],[],\"\",\"\",[])", 24)]
#[case::not_closed("Derive([],[],[],\"\",\"\",[],[]", 27)]
#[case::dynamic_form_in_the_old_version(
    "Derive([],[(\"/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-a.drv\",([],[]))],[],\"\",\"\",[],[])",
    64
)]
fn what_is_no_derivation_is_refused_with_its_place(#[case] text: &str, #[case] at: usize) {
    match Derivation::parse(text.as_bytes(), &store_dir()) {
        Err(DerivationError::Expected { offset, .. }) => assert_eq!(offset, at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_errors_name_their_place_too() {
    let parse = |text: &[u8]| Derivation::parse(text, &store_dir()).unwrap_err();
    assert_eq!(
        parse(b"DrvWithVersion(\"xp-other\",[],[],[],\"\",\"\",[],[])"),
        DerivationError::Version { offset: 15, version: "xp-other".to_owned() }
    );
    assert_eq!(parse(b"Derive([(\"\xff\",\"\",\"\",\"\")]"), DerivationError::NotUtf8 { offset: 9 });
    assert!(matches!(parse(b"Derive([],[],[\"/gnu/x\"]"), DerivationError::Path { offset: 14, .. }));
    assert!(matches!(
        parse(b"Derive([(\"out\",\"\",\"sha3\",\"\")]"),
        DerivationError::Hash { offset: 8, .. }
    ));
    for (output, problem) in [
        ("\"\",\"\",\"00\"", "a hash without an algorithm"),
        ("\"/x\",\"sha256\",\"impure\"", "a path although it is impure"),
        ("\"/x\",\"r:sha256\",\"\"", "a path although its content is not known"),
        ("\"/x\",\"text:md5\",\"d41d8cd98f00b204e9800998ecf8427e\"", "a text hash that is not sha256"),
    ] {
        let text = format!("Derive([(\"out\",{output})]");
        assert_eq!(parse(text.as_bytes()), DerivationError::Output { offset: 8, problem });
    }
}

#[test]
fn hostile_nesting_is_an_error_and_not_a_stack_overflow() {
    let mut text =
        b"DrvWithVersion(\"xp-dyn-drv\",[],[(\"/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-a.drv\",".to_vec();
    for _ in 0..1_000_000 {
        text.extend_from_slice(b"([],[(\"out\",");
    }
    let error = Derivation::parse(&text, &store_dir()).unwrap_err();
    assert!(matches!(error, DerivationError::TooDeep { limit: 64, .. }), "{error}");
}

fn input_addressed(seed: u8, inputs: &[&StorePath]) -> Derivation {
    let output = path(seed, "x");
    Derivation {
        outputs: BTreeMap::from([("out".to_owned(), DerivationOutput::InputAddressed(output))]),
        input_derivations: inputs
            .iter()
            .map(|&input| (input.clone(), WantedOutputs::from_iter(["out"])))
            .collect(),
        ..Derivation::default()
    }
}

#[test]
fn a_chain_of_thousands_is_read_once_each_and_without_recursion() {
    const LENGTH: u32 = 20_000;
    let name = |index: u32| {
        let mut digest = [0; 20];
        digest[..4].copy_from_slice(&index.to_le_bytes());
        StorePath::from_parts(&digest, "x.drv").unwrap()
    };
    let mut reads = 0;
    let mut cache = ModuloCache::new(store_dir());
    let last = input_addressed(1, &[&name(LENGTH)]);
    let mut read = |asked: &StorePath| {
        reads += 1;
        let digest: [u8; 20] = crate::nix32::decode(asked.digest()).unwrap().try_into().unwrap();
        let index = u32::from_le_bytes(digest[..4].try_into().unwrap());
        let inputs = [index.saturating_sub(1), index.saturating_sub(2)].map(name);
        let inputs = inputs.iter().take(if index < 2 { 0 } else { 2 }).collect::<Vec<_>>();
        Ok::<_, Cause>(input_addressed(1, &inputs))
    };
    let first = last.output_paths(&path(2, "x.drv"), &mut cache, &mut read).unwrap();
    let second = last.output_paths(&path(2, "x.drv"), &mut cache, &mut read).unwrap();
    assert_eq!(first, second);
    assert_eq!(reads, LENGTH + 1);
}

#[test]
fn a_derivation_among_its_own_inputs_is_an_error() {
    let (a, b) = (path(1, "a.drv"), path(2, "b.drv"));
    for other in [&a, &b] {
        let derivation = input_addressed(1, &[other]);
        let read = |_: &StorePath| Ok(input_addressed(2, &[&a]));
        let error = derivation.check_outputs(&a, &mut ModuloCache::new(store_dir()), read).unwrap_err();
        assert!(matches!(error, OutputsError::Cycle { ref derivation } if *derivation == a), "{error}");
    }
}

#[test]
fn only_paths_that_end_in_drv_are_derivations() {
    let derivation = input_addressed(1, &[]);
    let mut cache = ModuloCache::new(store_dir());
    let error = derivation.check_outputs(&path(1, "x"), &mut cache, |_| unreachable!()).unwrap_err();
    assert!(matches!(error, OutputsError::NotADerivation { .. }));
}

#[test]
fn an_output_that_names_no_store_path_is_an_error() {
    let mut derivation = input_addressed(1, &[]);
    let out = derivation.outputs.remove("out").unwrap();
    derivation.outputs.insert("a/b".to_owned(), out);
    let mut cache = ModuloCache::new(store_dir());
    let error = derivation.check_outputs(&path(1, "x.drv"), &mut cache, |_| unreachable!()).unwrap_err();
    assert!(matches!(error, OutputsError::Name { output, .. } if output == "a/b"));
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![select(b"\"\\\n\r\t,()[]a\xff\0".to_vec()), any::<u8>()];
    collection::vec(bytes, 0..12)
}

fn method() -> impl Strategy<Value = ContentMethod> {
    select(vec![ContentMethod::Flat, ContentMethod::Recursive, ContentMethod::Text, ContentMethod::Git])
}

fn store_path(name: &'static str) -> impl Strategy<Value = StorePath> {
    any::<[u8; 20]>().prop_map(move |digest| StorePath::from_parts(&digest, name).unwrap())
}

fn output() -> impl Strategy<Value = DerivationOutput> {
    let algorithm = HashAlgorithm::Sha256;
    prop_oneof![
        store_path("x").prop_map(DerivationOutput::InputAddressed),
        Just(DerivationOutput::Deferred),
        method().prop_map(move |method| DerivationOutput::Floating { method, algorithm }),
        method().prop_map(move |method| DerivationOutput::Impure { method, algorithm }),
        (store_path("x"), method(), any::<[u8; 32]>()).prop_map(|(path, method, hash)| {
            let address = ContentAddress::new(method, NarHash::new(hash).into()).unwrap();
            DerivationOutput::Fixed { path, address }
        }),
    ]
}

fn wanted() -> impl Strategy<Value = WantedOutputs> {
    let leaf = collection::btree_set("[a-zä\"]{1,4}", 0..3)
        .prop_map(|names| WantedOutputs { names, dynamic: BTreeMap::new() });
    leaf.prop_recursive(3, 8, 2, |inner| {
        (collection::btree_set("[a-z]{1,4}", 0..3), collection::btree_map("[a-z]{1,4}", inner, 0..3))
            .prop_map(|(names, dynamic)| WantedOutputs { names, dynamic })
    })
}

fn derivation() -> impl Strategy<Value = Derivation> {
    (
        collection::btree_map("[a-zä\\\\]{0,4}", output(), 0..4),
        collection::btree_map(store_path("x.drv"), wanted(), 0..3),
        option::of(store_path("source")),
        (text(), text()),
        collection::vec(text(), 0..4),
        collection::btree_map(text(), text(), 0..4),
    )
        .prop_map(|(outputs, input_derivations, source, (platform, builder), arguments, environment)| {
            Derivation {
                outputs,
                input_derivations,
                input_sources: source.into_iter().collect(),
                platform,
                builder,
                arguments,
                environment,
            }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(derivation in derivation()) {
        let text = derivation.to_bytes(&store_dir());
        let read = Derivation::parse(&text, &store_dir()).unwrap();
        prop_assert_eq!(read.to_bytes(&store_dir()), text);
        prop_assert_eq!(read, derivation);
    }

    #[test]
    fn no_prefix_is_a_derivation(derivation in derivation(), cut in any::<proptest::sample::Index>()) {
        let text = derivation.to_bytes(&store_dir());
        let cut = cut.index(text.len());
        prop_assert!(Derivation::parse(&text[..cut], &store_dir()).is_err());
    }

    #[test]
    fn changed_bytes_never_panic(derivation in derivation(), at in any::<proptest::sample::Index>(), byte: u8) {
        let mut text = derivation.to_bytes(&store_dir());
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(read) = Derivation::parse(&text, &store_dir()) {
            let canonical = read.to_bytes(&store_dir());
            prop_assert_eq!(Derivation::parse(&canonical, &store_dir()).unwrap(), read);
        }
    }
}
