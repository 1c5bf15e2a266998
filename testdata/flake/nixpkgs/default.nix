{ system }:
let
  lib = import ./lib.nix;

  # A derivation whose builder is a script for bash. It ends with a word of bash's own: as the last program, `mkdir` would take the
  # place of bash and close its output before it ends, which is when Nix kills a builder.
  build =
    {
      name,
      script,
      passthru ? { },
      meta ? { },
      ...
    }@arguments:
    derivation (
      removeAttrs arguments [
        "passthru"
        "meta"
        "script"
      ]
      // {
        inherit system;
        builder = "/bin/bash";
        args = [
          "-euc"
          "export PATH=/usr/bin:/bin; ${script}\nexit"
        ];
      }
    )
    // passthru
    // {
      inherit meta;
    };

  # As `callPackage` has it: the arguments may be changed afterwards.
  overridable =
    make: arguments:
    make arguments
    // {
      override = changed: overridable make (arguments // changed);
    };

  base = self: {
    inherit lib system;
    path = ./.;
    stdenv.hostPlatform.isLinux = builtins.match ".*-linux" system != null;
    callPackage =
      file: arguments:
      let
        function = if builtins.isFunction file then file else import file;
        available = builtins.intersectAttrs (builtins.functionArgs function) self;
      in
      overridable function (available // arguments);
    extend =
      overlay:
      fix (
        self:
        let
          previous = all self;
        in
        previous // overlay self previous
      );

    nix = build {
      name = "nix-2.99.1";
      passthru.man = build {
        name = "nix-2.99.1-man";
        script = ''
          mkdir -p $out/share/man/man1
          echo theirs > $out/share/man/man1/nix-copy-closure.1
          echo theirs > $out/share/man/man1/nix-store.1
        '';
      };
      script = ''
        mkdir -p $out/bin $out/etc
        for name in nix nix-copy-closure; do
          printf '#!/bin/sh\necho "their %s" "$@"\n' $name > $out/bin/$name
        done
        chmod +x $out/bin/*
        ln -s nix $out/bin/nix-store
      '';
    };

    # What nixos-rebuild does before anything else.
    nixos-rebuild = self.callPackage (
      { nix }:
      build {
        name = "nixos-rebuild";
        script = ''
          mkdir -p $out/bin
          printf '#!/bin/sh\nPATH=%s/bin:$PATH\n"$@"\n' ${nix} > $out/bin/nixos-rebuild
          chmod +x $out/bin/nixos-rebuild
        '';
      }
    ) { };

    rustPlatform.buildRustPackage =
      {
        pname,
        version,
        src,
        cargoLock,
        postInstall,
        passthru ? { },
        meta,
        ...
      }:
      assert builtins.pathExists cargoLock.lockFile;
      build {
        name = "${pname}-${version}";
        inherit meta;
        passthru = passthru // {
          inherit pname version;
        };
        script = ''
          installManPage() { install -D --target-directory $out/share/man/man1 "$@"; }
          installShellCompletion() { install -D --target-directory $out/share/completions "$@"; }
          cd ${src}
          for file in Cargo.toml cli/Cargo.toml cli/src/main.rs; do [ -f $file ]; done
          mkdir -p $out/bin
          # The program under test.
          printf '#!/bin/sh\nexec /candidate/nix-copy-closure "$@"\n' > $out/bin/${pname}
          chmod +x $out/bin/${pname}
          ${postInstall}
        '';
      };

    symlinkJoin =
      {
        name,
        paths,
        nativeBuildInputs ? [ ],
        postBuild,
        passthru,
        meta,
      }:
      build {
        inherit name passthru meta;
        script = ''
          ${lib.optionalString (nativeBuildInputs != [ ]) "source ${builtins.head nativeBuildInputs}"}
          mkdir $out
          for path in ${toString paths}; do cp --recursive --symbolic-link $path/. $out; chmod --recursive u+w $out; done
          ${postBuild}
        '';
      };

    linkFarm =
      name: entries:
      build {
        inherit name;
        script = "mkdir $out" + builtins.concatStringsSep "" (
          builtins.attrValues (builtins.mapAttrs (name: target: "; ln -s ${target} $out/${name}") entries)
        );
      };

    # Of its language as much as is used: PROGRAM FILE --argv0 NAME --set-default VARIABLE VALUE.
    makeBinaryWrapper = builtins.toFile "wrapper.sh" ''
      makeWrapper() {
        [ $# = 7 ] && [ "$3 $5" = "--argv0 --set-default" ]
        printf '#!/bin/bash\nexport %s="''${%s-%s}"\nexec -a %s %s "$@"\n' "$6" "$6" "$7" "$4" "$1" > "$2"
        chmod +x "$2"
      }
    '';

    mkShell =
      { inputsFrom, packages }:
      build {
        name = "shell";
        script = "echo ${toString (inputsFrom ++ packages)} > $out";
      };
    # It needs a virtual machine; here it is only evaluated.
    testers.runNixOSTest =
      test:
      build {
        inherit (test) name;
        text = test.testScript { nodes.sender.nix.package = self.nix; };
        script = "echo > $out";
      };
    writeTextDir =
      name: text:
      build {
        name = baseNameOf name;
        inherit text;
        script = "mkdir $out";
      };
  };
  tools = lib.genAttrs [
    "cargo"
    "cargo-nextest"
    "clippy"
    "installShellFiles"
    "openssh"
    "openssl"
    "perl"
    "pkg-config"
    "rustc"
    "rustfmt"
    "sqlite"
    "versionCheckHook"
  ] (
    name:
    build {
      inherit name;
      script = "echo > $out";
    }
  );
  all = self: tools // base self;
  fix =
    make:
    let
      self = make self;
    in
    self;
in
fix all
