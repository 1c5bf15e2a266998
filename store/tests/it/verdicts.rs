use std::fs;

use ncc_store::{Derivation, DerivationError, ModuloCache, OutputsError, StoreDir};
use rstest::rstest;

use crate::{files, reader, testdata};

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// No derivation, seen at this byte.
    Syntax(usize),
    Output(&'static str),
    Kinds,
    Path,
    Environment,
    MissingInput,
    MissingOutput,
}
use Verdict::*;

fn verdict(name: &str) -> Verdict {
    let file = fs::read(testdata().join("verdicts").join(format!("{name}.drv"))).unwrap();
    let store_dir = StoreDir::default();
    let path = store_dir.parse("/nix/store/ikyq657jb8yr88aivhzjwj5f3zhn0p1j-flat.tar.drv").unwrap();
    let derivation = match Derivation::parse(&file, &store_dir) {
        Ok(derivation) => derivation,
        Err(DerivationError::Expected { offset, .. }) => return Syntax(offset),
        Err(DerivationError::Output { problem, .. }) => return Output(problem),
        Err(DerivationError::Path { .. }) => return Output("a bad path"),
        Err(error) => panic!("{name}: {error}"),
    };
    let mut cache = ModuloCache::new(store_dir.clone());
    match derivation.check_outputs(&path, &mut cache, reader(&files(&testdata()), store_dir)) {
        Ok(()) => Accepted,
        Err(OutputsError::Kinds { .. }) => Kinds,
        Err(OutputsError::Path { .. }) => Path,
        Err(OutputsError::Environment { .. }) => Environment,
        Err(OutputsError::Input { .. }) => MissingInput,
        Err(OutputsError::MissingOutput { .. }) => MissingOutput,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// What Nix 2.3.7, 2.8.0 and 2.34.8 all take.
#[rstest]
#[case::good("good")]
#[case::raw_line_ends("cr_raw")]
#[case::one_variable_twice("dup_env")]
#[case::one_output_twice("dup_out")]
#[case::needless_escape("escape_a")]
#[case::input_of_a_fixed_output_is_missing("fixed_missing_input")]
#[case::comma_left_out("no_comma")]
#[case::source_not_among_references("source_missing_ref")]
#[case::something_behind_it("trailing_junk")]
#[case::line_end_behind_it("trailing_nl")]
#[case::not_sorted("unsorted_env")]
#[case::hash_in_upper_case("upper_hex")]
fn taken_by_all_ages_of_nix(#[case] name: &str) {
    assert_eq!(verdict(name), Accepted);
}

/// What Nix 2.3.7, 2.8.0 and 2.34.8 all refuse, for the same reason.
#[rstest]
#[case::comma_at_the_end("comma_end", Syntax(184))]
#[case::space("space", Syntax(180))]
#[case::fixed_output_without_path("fixed_no_path", Output("no path although its content is known"))]
#[case::fixed_output_with_relative_path("fixed_rel_path", Output("a bad path"))]
#[case::input_is_missing("ia_missing_input", MissingInput)]
#[case::wrong_path("ia_wrong", Path)]
#[case::no_path_in_the_environment("no_env", Environment)]
#[case::other_path_in_the_environment("right_path_wrong_env", Environment)]
fn refused_by_all_ages_of_nix(#[case] name: &str, #[case] reason: Verdict) {
    assert_eq!(verdict(name), reason);
}

/// What some age of Nix refuses: taking it would mean that the next copy fails.
#[rstest]
#[case::output_that_the_input_lacks("ia_bad_wanted", MissingOutput)]
#[case::two_kinds("ia_mixed_fixed", Kinds)]
#[case::no_outputs("no_outputs", Kinds)]
#[case::fixed_output_not_called_out("fixed_bin", Path)]
#[case::second_fixed_output("two_fixed", Path)]
#[case::nameless_output("empty_outname", Path)]
#[case::path_only_right_in_the_environment("wrong_path_right_env", Path)]
#[case::path_in_the_environment_not_in_normal_form("env_normalised", Environment)]
fn refused_by_some_age_of_nix(#[case] name: &str, #[case] reason: Verdict) {
    assert_eq!(verdict(name), reason);
}

#[test]
fn every_file_has_its_verdict() {
    let count = fs::read_dir(testdata().join("verdicts")).unwrap().count();
    assert_eq!(count, 12 + 8 + 8, "a file without a case above, or a case too many");
}
