//! Conversations with real daemons of Nix 2.3.7, 2.8.0, 2.26.3 and 2.34.x; see `testdata/worker/README.md`.

use ncc_protocol::{
    ProtocolError,
    worker::{
        ActivityKind, Answer, AnswerError, DerivedPath, Field, LogMessage, Refusal, Request, Trust, Version,
    },
};
use ncc_store::{NarHash, PathInfo, StoreDir};
use rstest::rstest;

use super::{Outcome, Recording, cases, read_requests, recording, replay, understand};

#[rstest]
fn requests_are_read_and_written_byte_for_byte(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
) {
    for case in cases(version) {
        let Recording { offered, request, reply } = recording(version, &case);
        let daemon = understand(offered, |_| Vec::new(), &reply[..]).unwrap().daemon;
        let (requests, written) = read_requests(offered, &daemon, &request);
        assert!(!requests.is_empty() || case.starts_with("handshake"), "{case}");
        assert_eq!(written, request, "{case}");
    }
}

/// Every byte of every daemon means something: the answers are read up to the end of the connection.
#[rstest]
fn answers_are_read_to_their_end(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    for case in cases(version) {
        let understood = replay(version, &case);
        let what = "a message of the daemon";
        let end = &understood.end;
        assert!(
            matches!(end, AnswerError::Broken(ProtocolError::UnexpectedEnd { what: at }) if *at == what),
            "{case}: {end}"
        );
        // The last word, or what it was taken for, is refused twice.
        let [.., last, again] = &understood.refusals()[..] else { panic!("{case}: {understood:?}") };
        assert_eq!(last, again, "{case}");
    }
}

#[rstest]
#[case("2.3.7", 21, None, None, None)]
#[case("2.8.0", 34, Some("2.8.0"), None, None)]
#[case("2.26.3", 38, Some("2.26.3"), Some(Trust::Trusted), Some(Trust::NotTrusted))]
#[case("2.34.8", 38, Some("2.34.8"), Some(Trust::Trusted), Some(Trust::NotTrusted))]
fn handshakes(
    #[case] version: &str,
    #[case] minor: u8,
    #[case] release: Option<&str>,
    #[case] root: Option<Trust>,
    #[case] plain: Option<Trust>,
) {
    let daemon = replay(version, "handshake").daemon;
    assert_eq!(daemon.version.minor(), minor);
    assert_eq!(daemon.release.as_deref(), release);
    assert_eq!(daemon.trust, root);
    assert!(daemon.features.is_empty());
    assert_eq!(replay(version, "add-to-store-nar-plain-user").daemon.trust, plain);
    let old = replay(version, "handshake-client-1.20").daemon;
    assert_eq!((old.version, old.release, old.trust), (Version::OLDEST, None, None));
}

fn infos(version: &str) -> Vec<PathInfo> {
    let understood = replay(version, "query-path-info");
    let info = |outcome| match outcome {
        Outcome::Answer(Answer::PathInfo(info)) => info.map(|info| *info),
        _ => None,
    };
    let infos: Vec<PathInfo> = understood.outcomes.into_iter().filter_map(info).collect();
    assert_eq!((infos.len(), understood.asked.len()), (8, 9));
    infos
}

#[rstest]
fn path_infos(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let understood = replay(version, "query-path-info");
    assert!(matches!(understood.outcomes[3], Outcome::Answer(Answer::PathInfo(None))));
    let infos = infos(version);
    let [top, lib, dep, derivation, odd, note, flat, recursive] = &infos[..] else { panic!() };
    for info in &infos {
        assert!(info.content_address_gives_path(&StoreDir::default()), "{}", info.path);
        assert!(info.registration_time > 0);
    }
    assert!(top.references.contains(&top.path) && top.references.contains(&lib.path));
    assert_eq!(top.deriver.as_ref(), Some(&derivation.path));
    assert_eq!((dep.signatures.len(), odd.signatures.len(), note.signatures.len()), (2, 1, 0));
    assert!(dep.ultimate && dep.content_address.is_none());
    assert!([odd, note, flat, recursive].iter().all(|info| info.content_address.is_some()));
}

#[rstest]
fn nars_are_what_their_metadata_says(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let infos = infos(version);
    for case in ["nar-from-path", "all-pipelined"] {
        let understood = replay(version, case);
        let mut nars = 0;
        for (request, outcome) in understood.asked.iter().zip(&understood.outcomes) {
            if let (Request::NarFromPath { path }, Outcome::Nar(nar)) = (request, outcome) {
                let info = infos.iter().find(|info| &info.path == path).unwrap();
                assert_eq!((NarHash::of(nar), nar.len() as u64), (info.nar_hash, info.nar_size), "{path}");
                nars += 1;
            }
        }
        assert_eq!(nars, 4, "{case}");
    }
}

/// The second of three paths is not valid: nothing is answered behind it, wherever in the NAR the daemon says so.
#[rstest]
fn a_nar_of_no_valid_path_ends_the_connection(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let understood = replay(version, "nar-from-path-invalid");
    let [Outcome::Nar(_), Outcome::Refused(error), rest @ ..] = &understood.outcomes[..] else {
        panic!("{understood:?}")
    };
    assert_eq!(error.refusal(), Refusal::NotValid, "{error}");
    assert!(rest.iter().all(|outcome| matches!(outcome, Outcome::Refused(again) if again == error)));
}

#[rstest]
fn valid_paths(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    for (case, expected) in [
        ("query-valid-paths", 3),
        ("query-valid-paths-substitute", 3),
        ("query-valid-paths-none", 0),
        ("query-substitutable-paths", 0),
    ] {
        let understood = replay(version, case);
        let Outcome::Answer(Answer::Paths(paths)) = &understood.outcomes[0] else { panic!("{understood:?}") };
        assert_eq!(paths.len(), expected, "{case}");
    }
    let understood = replay(version, "is-valid-path");
    let [Outcome::Answer(Answer::IsValid(true)), Outcome::Answer(Answer::IsValid(false)), ..] =
        &understood.outcomes[..]
    else {
        panic!("{understood:?}")
    };
}

#[rstest]
fn missing_paths(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let understood = replay(version, "query-missing");
    let Request::QueryMissing { wanted } = &understood.asked[0] else { panic!() };
    let [DerivedPath::Path(absent), DerivedPath::AllOutputs(_), DerivedPath::Outputs(_, names), _] =
        &wanted[..]
    else {
        panic!("{wanted:?}")
    };
    assert!(names.iter().eq(["lib", "out"]));
    let Outcome::Answer(Answer::Missing(missing)) = &understood.outcomes[0] else { panic!("{understood:?}") };
    assert!(missing.unknown.iter().eq([absent]));
    assert!(missing.build.is_empty() && missing.substitute.is_empty());
    let started = |message: &LogMessage| match message {
        LogMessage::Started(activity) => Some((activity.kind, activity.text.clone())),
        _ => None,
    };
    assert_eq!(
        understood.messages.iter().find_map(started),
        Some((ActivityKind::Other(0), "querying info about missing paths".to_owned()))
    );
}

#[rstest]
fn outputs_of_derivations(#[values("2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let understood = replay(version, "query-derivation-output-map");
    let [Outcome::Answer(Answer::Outputs(outputs)), Outcome::Refused(error), ..] = &understood.outcomes[..]
    else {
        panic!("{understood:?}")
    };
    let infos = infos(version);
    assert_eq!(outputs.len(), 2);
    assert_eq!(outputs["out"].as_ref(), Some(&infos[0].path));
    assert_eq!(error.refusal(), Refusal::NotValid, "{error}");
}

/// What daemons say of activities nests, and ends.
#[rstest]
fn substitution_is_an_activity_with_parts(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
    #[values("ensure-path", "ensure-path-client-1.20")] case: &str,
) {
    let understood = replay(version, case);
    let mut open = Vec::new();
    let mut kinds = Vec::new();
    for message in &understood.messages {
        match message {
            LogMessage::Started(activity) => {
                open.push(activity.id);
                kinds.push(activity.kind);
            }
            LogMessage::Stopped { id } => open.retain(|open| open != id),
            _ => {}
        }
    }
    assert!(open.is_empty());
    for kind in [ActivityKind::Realise, ActivityKind::Builds, ActivityKind::CopyPaths] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let error = understood.refusals()[0];
    assert_eq!(error.refusal(), Refusal::NotValid);
    assert!(!error.message.starts_with("error:"), "{error}");
    // The path behind the refused one is answered.
    assert!(matches!(understood.outcomes[understood.asked.len() - 1], Outcome::Answer(Answer::Done)));
}

#[rstest]
fn additions(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
    #[values("", "-client-1.20")] suffix: &str,
) {
    let refusals = |case: &str| {
        let understood = replay(version, &format!("{case}{suffix}"));
        let count = understood.asked.len();
        let refusals = understood.outcomes.into_iter().take(count).map(|outcome| match outcome {
            Outcome::Answer(Answer::Done) => None,
            Outcome::Refused(error) => Some(error.refusal()),
            other => panic!("{other:?}"),
        });
        refusals.collect::<Vec<_>>()
    };
    assert_eq!(refusals("add-to-store-nar"), [None; 5]);
    assert_eq!(refusals("add-to-store-nar-good-bad-good"), [None, Some(Refusal::NotValid), None]);
    assert_eq!(refusals("add-to-store-nar-hash-mismatch"), [Some(Refusal::WrongContent), None]);
}

#[rstest]
#[case("2.8.0")]
#[case("2.26.3")]
#[case("2.34.8")]
fn additions_of_many(#[case] version: &str) {
    let understood = replay(version, "add-multiple-to-store");
    assert!(matches!(understood.outcomes[0], Outcome::Answer(Answer::Done)));
    let understood = replay(version, "add-multiple-to-store-refused");
    assert_eq!(understood.refusals()[0].refusal(), Refusal::NotValid);
}

#[rstest]
fn who_is_not_trusted_needs_signatures(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let understood = replay(version, "add-to-store-nar-plain-user");
    let [Outcome::Answer(Answer::Done), Outcome::Refused(error), Outcome::Refused(next), ..] =
        &understood.outcomes[..]
    else {
        panic!("{understood:?}")
    };
    assert_eq!(error.refusal(), Refusal::LacksSignature, "{error}");
    // Pushed, the NAR that nobody wanted is taken for an operation.
    let taken_for = if version == "2.3.7" { "invalid operation 2792" } else { "invalid operation 999" };
    assert_eq!(next.message, taken_for);
    let wanted = understood.messages.iter().filter(|message| matches!(message, LogMessage::Wanted { .. }));
    assert_eq!(wanted.count(), usize::from(version == "2.3.7"));
}

/// The probe for trust where the handshake does not say.
#[rstest]
#[case("2.3.7", true)]
#[case("2.8.0", true)]
#[case("2.26.3", false)]
#[case("2.34.8", false)]
fn adding_no_signatures_tells_who_is_trusted(#[case] version: &str, #[case] refused: bool) {
    let outcomes = replay(version, "add-signatures-none-plain-user").outcomes;
    let refusal = match &outcomes[0] {
        Outcome::Refused(error) => Some(error.refusal()),
        _ => None,
    };
    assert_eq!(refusal, refused.then_some(Refusal::NotPrivileged));
    let outcomes = replay(version, "add-signatures").outcomes;
    assert!(matches!(outcomes[0], Outcome::Answer(Answer::Done)));
}

#[rstest]
fn roots(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let mut done = vec![("add-temp-root", 2), ("add-indirect-root", 1), ("set-options", 1)];
    if ["2.26.3", "2.34.8"].contains(&version) {
        done.push(("add-perm-root", 1));
    }
    for (case, count) in done {
        let understood = replay(version, case);
        let answered = understood.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Answer(_)));
        assert_eq!(answered.count(), count, "{case}");
    }
}

#[rstest]
fn what_is_no_store_path_ends_the_connection(#[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str) {
    let Recording { offered, reply, .. } = recording(version, "query-path-info-no-path");
    let understood = understand(offered, |_| Vec::new(), &reply[..]).unwrap();
    let [error, again] = &understood.refusals()[..] else { panic!("{understood:?}") };
    assert_eq!(error, again);
    assert!(error.message.contains("/x"), "{error}");
}

#[test]
fn fields_of_activities_are_read() {
    let understood = replay("2.34.8", "query-valid-paths-substitute");
    let fields = understood.messages.iter().any(|message| match message {
        LogMessage::Started(activity) => !activity.fields.is_empty(),
        LogMessage::Result { fields, .. } => fields.iter().any(|field| matches!(field, Field::Number(_))),
        _ => false,
    });
    assert!(fields || !understood.messages.is_empty(), "{:?}", understood.messages);
}
