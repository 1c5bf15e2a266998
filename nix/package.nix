{
  lib,
  rustPlatform,
  installShellFiles,
  pkg-config,
  sqlite,
  versionCheckHook,
}:

let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = "nix-copy-closure";
  inherit (manifest.workspace.package) version;

  # What the build reads, so that a change of anything else builds nothing anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions (
      [
        ../Cargo.toml
        ../Cargo.lock
        ../completions
        ../man
      ]
      ++ map (member: ../. + "/${member}") manifest.workspace.members
    );
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [
    installShellFiles
    pkg-config
  ];
  buildInputs = [ sqlite ];

  cargoBuildFlags = [ "--package=nix-copy-closure" ];
  # Without `bundled-sqlite`: there is one.
  buildNoDefaultFeatures = true;
  buildFeatures = [ "ssh" ];

  # The others start sshd and Nix; `cargo xtask test` runs them.
  cargoTestFlags = [
    "--package=nix-copy-closure"
    "--bins"
  ];

  postInstall = ''
    ln -s nix-copy-closure $out/bin/ncc
    installManPage man/nix-copy-closure.1
    installShellCompletion completions/nix-copy-closure.{bash,fish,zsh}
  '';

  doInstallCheck = true;
  nativeInstallCheckInputs = [ versionCheckHook ];

  meta = {
    inherit (manifest.workspace.package) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = lib.platforms.unix;
    mainProgram = "nix-copy-closure";
    # Nix has a program of this name too (priority 5): installed side by side, this one is meant.
    priority = 4;
  };
}
