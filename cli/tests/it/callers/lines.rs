//! The command lines, as a shell has them. `$HOST` is where a copy goes to or comes from, `$SOURCE` a host that has the paths, `$TOP` and `$OTHER` are store paths, `$DRV` is
//! a derivation and `$OUT` its output, `$TMP` is a directory of one run; NIX_SSHOPTS is what leads to the host.

/// Who calls, and the line.
pub(super) type Line = (&'static str, &'static str);

/// `nix-copy-closure`, from the machine that has the paths.
pub(super) const OLD_TO: &[Line] = &[
    (
        "nixos-rebuild-ng",
        "NIX_SSHOPTS=\"-o ControlMaster=auto -o ControlPath=$TMP/ssh-%n -o ControlPersist=60 $NIX_SSHOPTS\" nix-copy-closure \
         -s -v --max-jobs 1 --cores 0 --log-format raw --keep-going --keep-failed --fallback --option sandbox false --to $HOST $TOP",
    ),
    ("nixos-rebuild-ng, a derivation for a build host", "nix-copy-closure --to $HOST $DRV"),
    (
        "nixos-rebuild",
        "NIX_SSHOPTS=\"$NIX_SSHOPTS -o ControlMaster=auto -o ControlPath=$TMP/ssh-%n -o ControlPersist=60\" nix-copy-closure \
         --to $HOST $TOP",
    ),
    (
        "colmena",
        "NIX_SSHOPTS=\"-o StrictHostKeyChecking=accept-new -o BatchMode=yes -T $NIX_SSHOPTS\" nix-copy-closure \
         --to --include-outputs --use-substitutes --gzip $HOST $TOP",
    ),
    (
        "morph",
        "NIX_SSHOPTS=\"-o StrictHostkeyChecking=No -o UserKnownHostsFile=/dev/null $NIX_SSHOPTS\" nix-copy-closure \
         --to \"$HOST?ssh-key=$KEY\" $TOP --option sandbox false --option fallback true --use-substitutes",
    ),
    ("nixops 2", "nix-copy-closure --to $HOST $TOP --use-substitutes"),
    (
        "terraform-nixos",
        "NIX_SSHOPTS=\"-o ControlMaster=no -o BatchMode=yes -v $NIX_SSHOPTS\" nix-copy-closure --to $HOST $TOP --gzip \
         --use-substitutes",
    ),
    ("hercules-ci-effects", "nix-copy-closure --use-substitutes --to \"$HOST\" $TOP"),
    ("nixus", "nix-copy-closure -s --to $HOST $TOP $OTHER"),
    ("trilby", "nix-copy-closure --gzip --to $HOST $TOP"),
];

/// `nix-copy-closure`, from the machine that lacks the paths.
pub(super) const OLD_FROM: &[Line] = &[
    ("nixos-rebuild", "nix-copy-closure --from $HOST $TOP"),
    ("colmena", "nix-copy-closure --from --use-substitutes --gzip $HOST $TOP"),
    ("rbuild", "nix-copy-closure --from $HOST $TOP $OTHER"),
];

/// `nix copy`, from the machine that has the paths.
pub(super) const NEW_TO: &[Line] = &[
    (
        "nixos-rebuild, flakes with a build host",
        "nix --extra-experimental-features 'nix-command flakes' copy -v --derivation --to ssh://$HOST $DRV",
    ),
    (
        "nixos-rebuild-ng, hosts of ssh-ng",
        "nix --extra-experimental-features 'nix-command flakes' copy --to ssh-ng://$HOST $TOP",
    ),
    (
        "nh",
        "nix --extra-experimental-features 'nix-command flakes' copy --no-check-sigs --to ssh-ng://$HOST \
         --substitute-on-destination $TOP",
    ),
    (
        "colmena",
        "nix --extra-experimental-features nix-command copy --no-check-sigs --substitute-on-destination \
         --builders-use-substitutes --to \"ssh-ng://$HOST?compress=true\" $TOP",
    ),
    (
        "colmena, a derivation",
        "nix --extra-experimental-features nix-command copy --no-check-sigs --derivation --to ssh-ng://$HOST $DRV",
    ),
    ("deploy-rs", "nix copy --substitute-on-destination --no-check-sigs --to ssh://$HOST $TOP"),
    (
        "nixos-anywhere",
        "NIX_SSHOPTS=\"-o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no $NIX_SSHOPTS\" nix copy \
         --extra-experimental-features 'nix-command flakes' --no-write-lock-file -L --option sandbox false \
         --substitute-on-destination --to \"ssh://$HOST?remote-store=local%3Froot=$ENCODED_TO&compress=true\" $TOP",
    ),
    ("nixos-anywhere, terraform", "nix copy -s --experimental-features nix-command --to ssh://$HOST $TOP"),
    ("clan", "nix copy --to ssh://$HOST --no-check-sigs $TOP"),
    (
        "nixops4",
        "nix copy --to ssh-ng://$HOST $TOP --no-check-sigs --extra-experimental-features nix-command \
         --substitute-on-destination",
    ),
    (
        "wire",
        "nix --extra-experimental-features nix-command copy --substitute-on-destination --to ssh://$HOST $TOP",
    ),
    ("darwin-rebuild", "nix copy -v --no-require-sigs --to ssh://$HOST $TOP"),
    (
        "hydra",
        "nix --extra-experimental-features nix-command copy --from \"unix://$SOCKET?root=$FROM\" --to ssh://$HOST $TOP $OTHER",
    ),
    ("a person", "ln -s $TOP $TMP/result; cd $TMP; nix copy --to ssh://$HOST ./result"),
    ("a person, paths from a pipe", "echo $TOP $OTHER | xargs nix copy --no-check-sigs --to ssh-ng://$HOST"),
    ("a person, everything", "nix copy --all --to ssh://$HOST"),
    ("a person, one path", "nix copy --no-recursive --to ssh://$HOST $OTHER"),
    ("a person, the derivation of an output", "nix copy --derivation --to ssh://$HOST $OUT"),
];

/// With words that are newer than the Nix that these tests have: behind each, what says the same to an old one.
pub(super) const NEWER: &[(&str, &str, &str)] = &[
    (
        "deploy-rs, remote build",
        "nix --experimental-features nix-command copy -s --to ssh-ng://$HOST --derivation $DRV^out",
        "nix --experimental-features nix-command copy -s --to ssh-ng://$HOST --derivation $DRV",
    ),
    (
        "wire",
        "nix --extra-experimental-features nix-command copy --to ssh://$HOST \"$DRV^*\" --derivation",
        "nix --extra-experimental-features nix-command copy --to ssh://$HOST $DRV --derivation",
    ),
    ("a person, an output", "nix copy --to ssh://$HOST $DRV^out", "nix copy --to ssh://$HOST $OUT"),
    ("a person, all outputs", "nix copy --to ssh://$HOST \"$DRV^*\"", "nix copy --to ssh://$HOST $OUT"),
    (
        "a person, paths on standard input",
        "echo \"$TOP $OTHER\" | nix copy --stdin --to ssh://$HOST",
        "nix copy --to ssh://$HOST $TOP $OTHER",
    ),
];

/// `nix copy`, from the machine that lacks the paths.
pub(super) const NEW_FROM: &[Line] = &[
    (
        "nh",
        "nix --extra-experimental-features 'nix-command flakes' copy --no-check-sigs --from ssh-ng://$HOST $TOP",
    ),
    (
        "colmena",
        "nix --extra-experimental-features nix-command copy --no-check-sigs --from ssh-ng://$HOST $TOP",
    ),
    ("a person", "nix copy --from ssh://$HOST $TOP $OTHER"),
    ("a person, into a directory", "NIX_REMOTE= nix copy --from ssh://$HOST --to $TO $TOP"),
];

/// Of paths that nobody has signed.
pub(super) const UNSIGNED_TO: &[Line] = &[
    ("ssh", "nix copy --to ssh://$HOST $TOP"),
    ("ssh-ng, unchecked", "nix copy --no-check-sigs --to ssh-ng://$HOST $TOP"),
    ("the old command", "nix-copy-closure --to $HOST $TOP"),
];

/// The same, in the other direction.
pub(super) const UNSIGNED_FROM: &[Line] = &[
    ("ssh, unchecked", "nix copy --from ssh://$HOST $TOP --no-check-sigs"),
    ("ssh, checked by nobody", "nix copy --from ssh://$HOST $TOP --option require-sigs false"),
    ("the old command", "nix-copy-closure --from $HOST $TOP"),
];

/// What is refused of such paths.
pub(super) const REFUSED_TO: &[Line] = &[
    ("ssh-ng", "nix copy --to ssh-ng://$HOST $TOP"),
    ("ssh-ng between hosts", "nix copy --from ssh://$SOURCE --to ssh-ng://$HOST $TOP"),
    ("a directory", "nix copy --to $TO $TOP"),
];

/// The same, in the other direction.
pub(super) const REFUSED_FROM: &[Line] = &[
    ("ssh", "nix copy --from ssh://$HOST $TOP"),
    ("ssh-ng", "nix copy --from ssh-ng://$HOST $TOP"),
    (
        "what is not there",
        "nix copy --no-check-sigs --from ssh://$HOST /nix/store/00000000000000000000000000000000-absent",
    ),
];

/// From one host, which has the paths, to another one.
pub(super) const BETWEEN: &[Line] = &[
    (
        "nh, nixos-rebuild-ng",
        "nix --extra-experimental-features 'nix-command flakes' copy --no-check-sigs --from ssh-ng://$SOURCE --to ssh-ng://$HOST \
         $TOP",
    ),
    ("a person", "nix copy --to ssh://$HOST --from ssh://$SOURCE $TOP $OTHER"),
    ("nixos-cli", "nix-copy-closure --store ssh://$SOURCE --to $HOST $TOP"),
];

/// Between two stores of this machine.
pub(super) const HERE: &[Line] = &[
    ("an installer", "nix copy --no-check-sigs --to $TO $TOP"),
    ("a person, by the default store", "NIX_REMOTE=$TO nix copy --from $FROM $TOP $OTHER"),
    ("a person, by the setting", "NIX_REMOTE=/nowhere nix --store $FROM copy --to \"local?root=$TO\" $TOP"),
    ("a person, everything", "NIX_REMOTE=/nowhere nix copy --all --from $FROM --to $TO"),
    ("a person, in the same store", "nix copy --from $FROM --to $FROM $TOP && nix copy --to $TO $OTHER"),
];

/// What Nix does itself, with words on standard output. `$CACHE` is a binary cache.
pub(super) const HANDED_ON: &[Line] = &[
    ("a build", "nix build --no-link $TOP"),
    ("an evaluation", "nix eval --raw --expr '\"a\" + \"b\"'"),
    ("an evaluation that fails", "nix eval --expr 'throw \"no\"'"),
    ("a question", "nix --extra-experimental-features nix-command path-info --closure-size $TOP"),
    ("a file as input", "echo '1 + 1' | nix eval --file -"),
    (
        "a binary cache, there and back",
        "nix copy --to file://$CACHE $TOP && ls $CACHE && NIX_REMOTE=$TO nix copy --no-check-sigs --from file://$CACHE $TOP",
    ),
    ("what does not exist", "nix frobnicate"),
    ("an unknown option", "nix copy --frobnicate --to ssh://$HOST $TOP"),
    ("the version", "nix --version"),
];
