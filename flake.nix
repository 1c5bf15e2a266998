{
  description = "Copy closures of Nix store paths between machines over SSH, sending only what is missing";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forAll = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      ours = pkgs: pkgs.extend self.overlays.default;
    in
    {
      overlays.default = import ./nix/overlay.nix;

      packages = forAll (pkgs: {
        default = (ours pkgs).nix-copy-closure;
        inherit (ours pkgs) nix-copy-closure nix-with-copy-closure;
      });

      # Each puts the program into `nix.package`, which is where nixos-rebuild and its like look for it.
      nixosModules.default = import ./nix/module.nix [ "environment" "systemPackages" ];
      darwinModules.default = import ./nix/module.nix [ "environment" "systemPackages" ];
      homeModules.default = import ./nix/module.nix [ "home" "packages" ];

      # What `cargo xtask test` wants.
      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (ours pkgs).nix-copy-closure ];
          packages = [
            pkgs.cargo
            pkgs.cargo-nextest
            pkgs.clippy
            pkgs.openssh
            pkgs.openssl
            pkgs.perl
            pkgs.rustc
            pkgs.rustfmt
            pkgs.sqlite
          ];
        };
      });

      checks = forAll (
        pkgs:
        {
          inherit (ours pkgs) nix-copy-closure nix-with-copy-closure;
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
          vm = import ./nix/vm-test.nix { inherit pkgs self; };
        }
      );
    };
}
