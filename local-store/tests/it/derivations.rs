//! Derivations: checked, and their outputs known.

use ncc_store::{
    Derivation, DerivationOutput, ModuloCache, NarHash, Outcome, Outputs, PathInfo, StoreDir, StorePath,
    test_util::file_nar,
};

use crate::support::*;

/// A derivation with two outputs and its path, as Nix would make it.
fn derivation(name: &str, inputs: &[(&StorePath, &Derivation)]) -> (Derivation, StorePath) {
    let dir = StoreDir::default();
    let placeholder = output("placeholder", b"").path;
    let mut derivation = Derivation {
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        ..Derivation::default()
    };
    derivation.environment.insert(b"name".to_vec(), name.into());
    for (path, _) in inputs {
        derivation.input_derivations.insert((*path).clone(), ["out"].into_iter().collect());
    }
    for output in ["out", "dev"] {
        derivation.outputs.insert(output.to_owned(), DerivationOutput::InputAddressed(placeholder.clone()));
        derivation.environment.insert(output.into(), Vec::new());
    }
    let path = StorePath::from_parts(&[0; 20], &format!("{name}.drv")).unwrap();
    let read = |input: &StorePath| {
        Ok(inputs
            .iter()
            .find(|(path, _)| *path == input)
            .map(|(_, derivation)| (*derivation).clone())
            .unwrap())
    };
    let outputs = derivation.output_paths(&path, &mut ModuloCache::new(dir.clone()), read).unwrap();
    for (output, path) in outputs {
        derivation.environment.insert(output.clone().into(), dir.full(&path).into());
        derivation.outputs.insert(output, DerivationOutput::InputAddressed(path));
    }
    let path = derivation.store_path(&dir, name).unwrap();
    (derivation, path)
}

fn object(path: &StorePath, derivation: &Derivation) -> (PathInfo, Vec<u8>) {
    let text = derivation.to_bytes(&StoreDir::default());
    let nar = file_nar(&text);
    let mut info = PathInfo::new(path.clone(), NarHash::of(&nar), nar.len() as u64);
    info.references = derivation.references();
    let claim = format!("text:sha256:{}", NarHash::of(&text).to_nix32());
    info.content_address = Some(claim.parse().unwrap());
    (info, nar)
}

#[tokio::test]
async fn outputs_are_recorded_and_belong_to_closures_that_want_them() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let (dep, dep_path) = derivation("dep", &[]);
    let (top, top_path) = derivation("top", &[(&dep_path, &dep)]);
    for (path, derivation) in [(&dep_path, &dep), (&top_path, &top)] {
        let (info, nar) = object(path, derivation);
        let outcome = add_one(&store, info, whole(&nar)).await;
        assert!(matches!(outcome, Ok(Outcome::Added(_))), "{outcome:?}");
    }
    let expected: Vec<String> = [(&dep_path, &dep), (&top_path, &top)]
        .into_iter()
        .flat_map(|(path, derivation)| {
            derivation
                .outputs
                .iter()
                .map(move |(name, output)| format!("{}|{name}|{}", full(path), full(output.path().unwrap())))
        })
        .collect();
    let query = "select ValidPaths.path, DerivationOutputs.id, DerivationOutputs.path from DerivationOutputs \
                 join ValidPaths on drv = ValidPaths.id order by drv, DerivationOutputs.id";
    assert_eq!(rows(&store, query), expected);

    // One output of each is there; one of them refers to something else.
    let nar = file_nar(b"x");
    let library = output("library", &nar);
    let at = |path: &StorePath| PathInfo::new(path.clone(), NarHash::of(&nar), nar.len() as u64);
    let mut dep_dev = at(dep.outputs["dev"].path().unwrap());
    dep_dev.references = [library.path.clone()].into_iter().collect();
    let top_out = at(top.outputs["out"].path().unwrap());
    for info in [&library, &dep_dev, &top_out] {
        store.add_nar(info, &mut &nar[..]).unwrap();
    }
    let closure = |root: &StorePath, outputs| {
        let infos = store.query_closure(std::slice::from_ref(root), outputs).unwrap();
        infos.into_iter().map(|info| info.path).collect::<Vec<_>>()
    };
    let sorted = |mut paths: Vec<StorePath>| {
        paths.sort();
        paths
    };
    assert_eq!(closure(&top_path, Outputs::Exclude), sorted(vec![dep_path.clone(), top_path.clone()]));
    assert_eq!(
        closure(&top_path, Outputs::Include),
        sorted(vec![dep_path, top_path.clone(), library.path, dep_dev.path, top_out.path.clone()])
    );
    assert_eq!(closure(&top_out.path, Outputs::Include), [top_out.path.clone()]);
}

#[tokio::test]
async fn what_is_no_proper_derivation_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let path = |name: &str| StorePath::from_parts(&[7; 20], name).unwrap();
    let info = |name: &str, nar: &[u8]| PathInfo::new(path(name), NarHash::of(nar), nar.len() as u64);

    let text = file_nar(b"not a derivation");
    let outcome = failure(add_one(&store, info("a.drv", &text), whole(&text)).await);
    assert!(outcome.contains("is not a proper derivation: "), "{outcome}");

    let tree = tree_nar(b"x");
    let outcome = failure(add_one(&store, info("b.drv", &tree), whole(&tree)).await);
    assert!(outcome.contains("it is not a regular file"), "{outcome}");

    let (mut wrong, wrong_path) = derivation("wrong", &[]);
    wrong.outputs.insert("out".into(), DerivationOutput::InputAddressed(path("elsewhere")));
    let (mut info, nar) = object(&wrong_path, &wrong);
    info.content_address = None;
    let outcome = failure(add_one(&store, info, whole(&nar)).await);
    assert!(outcome.contains("is not a proper derivation: ") && outcome.contains("elsewhere"), "{outcome}");

    // Its input is nowhere to be read.
    let (dep, dep_path) = derivation("dep", &[]);
    let (top, top_path) = derivation("top", &[(&dep_path, &dep)]);
    let (info, nar) = object(&top_path, &top);
    let outcome = failure(add_one(&store, info, whole(&nar)).await);
    assert!(outcome.contains(dep_path.base_name()), "{outcome}");
    assert_eq!(on_disk(&store), [""; 0]);
}
