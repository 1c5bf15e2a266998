use ncc_store::{
    ContentMethod, Derivation, DerivationOutput, HashAlgorithm, ModuloCache, OutputsError, StoreDir,
};

use crate::{check_written_by_nix, files, reader, testdata};

fn golden(name: &str) -> Derivation {
    let files = files(&testdata());
    let mut found = files.iter().filter(|(path, _)| path.name() == format!("{name}.drv"));
    let (_, file) = found.next().unwrap_or_else(|| panic!("no golden file called {name}"));
    Derivation::parse(file, &StoreDir::default()).unwrap()
}

#[test]
fn files_written_by_nix_come_back_byte_for_byte_with_the_same_paths() {
    let files = files(&testdata());
    assert_eq!(files.len(), 13);
    check_written_by_nix(&files);
}

#[test]
fn every_kind_of_output_is_told_apart() {
    let floating = (ContentMethod::Recursive, HashAlgorithm::Sha256);
    let kind = |name: &str| golden(name).outputs.remove("out").unwrap();
    assert!(matches!(kind("top"), DerivationOutput::InputAddressed(path) if path.name() == "top"));
    assert!(matches!(kind("flat.tar"), DerivationOutput::Fixed { address, .. }
        if address.method() == ContentMethod::Flat && address.hash().algorithm() == HashAlgorithm::Sha256));
    assert!(matches!(kind("recursive"), DerivationOutput::Fixed { address, .. }
        if address.method() == ContentMethod::Recursive && address.hash().algorithm() == HashAlgorithm::Sha1));
    assert!(matches!(kind("floating"), DerivationOutput::Floating { method, algorithm }
        if (method, algorithm) == floating));
    assert!(matches!(kind("made.drv"), DerivationOutput::Floating { method: ContentMethod::Text, .. }));
    assert!(matches!(kind("impure"), DerivationOutput::Impure { method, algorithm }
        if (method, algorithm) == floating));
    assert_eq!(kind("deferred"), DerivationOutput::Deferred);
}

#[test]
fn the_fields_are_where_nix_put_them() {
    let top = golden("top");
    assert_eq!(top.platform, b"x86_64-linux");
    assert_eq!(top.builder, b"/bin/sh");
    assert_eq!(top.arguments, [b"-c".as_slice(), b"tab\there \"quoted\" back\\slash\nnext line\r"]);
    assert_eq!(top.environment[b"text".as_slice()], b"Z\xc3\xa4une \xff");
    let dep = top.input_derivations.iter().find(|(path, _)| path.name() == "dep.drv").unwrap().1;
    assert_eq!(dep.names.iter().collect::<Vec<_>>(), ["dev", "out"]);
    assert_eq!(golden("dep").input_sources.as_slice()[0].name(), "source.txt");
    assert_eq!(top.references().len(), 4);
}

#[test]
fn dynamic_derivations_keep_what_is_wanted_of_what_they_make() {
    let user = golden("user");
    let made = user.input_derivations.iter().find(|(path, _)| path.name() == "made.drv.drv").unwrap().1;
    assert!(made.names.is_empty());
    let out = &made.dynamic["out"];
    assert!(out.names.contains("out"));
    assert!(out.dynamic["out"].names.contains("bin"));
}

/// A change of any file that a path depends on is noticed.
#[test]
fn a_derivation_that_was_tampered_with_is_refused() {
    let files = files(&testdata());
    let store_dir = StoreDir::default();
    for name in ["dep", "top", "structured"] {
        let (path, _) = files.iter().find(|(path, _)| path.name() == format!("{name}.drv")).unwrap();
        let mut derivation = golden(name);
        derivation.builder = b"/bin/bash".to_vec();
        let mut cache = ModuloCache::new(store_dir.clone());
        let error =
            derivation.check_outputs(path, &mut cache, reader(&files, store_dir.clone())).unwrap_err();
        assert!(matches!(error, OutputsError::Path { .. }), "{error}");
    }
    let (path, _) = files.iter().find(|(path, _)| path.name() == "top.drv").unwrap();
    let change = |edit: fn(&mut Derivation)| {
        let mut cache = ModuloCache::new(store_dir.clone());
        let mut read = reader(&files, store_dir.clone());
        golden("top").check_outputs(path, &mut cache, |input| {
            let mut derivation = read(input)?;
            if input.name() == "dep.drv" || input.name() == "recursive.drv" {
                edit(&mut derivation);
            }
            Ok(derivation)
        })
    };
    change(|_| {}).unwrap();
    // The platform shows in the input-addressed one of the two.
    assert!(matches!(change(|input| input.platform.clear()), Err(OutputsError::Path { .. })));
    assert!(matches!(
        change(|input| {
            input.outputs.remove("dev");
        }),
        Err(OutputsError::MissingOutput { output, .. }) if output == "dev"
    ));
}

#[test]
fn inputs_of_a_fixed_output_are_not_asked_for() {
    let files = files(&testdata());
    let (path, file) = files.iter().find(|(path, _)| path.name() == "recursive.drv").unwrap();
    let derivation = Derivation::parse(file, &StoreDir::default()).unwrap();
    assert_eq!(derivation.input_derivations.len(), 1);
    let mut cache = ModuloCache::new(StoreDir::default());
    derivation.check_outputs(path, &mut cache, |input| panic!("asked for {input}")).unwrap();
    cache.insert(path, &derivation, |input| panic!("asked for {input}")).unwrap();
    assert_eq!(cache.len(), 1);
}
