{
  inputs.nixpkgs.url = "path:/lab/flake/nixpkgs";
  inputs.nix-copy-closure.url = "path:/lab/flake/ours";
  inputs.nix-copy-closure.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    {
      self,
      nixpkgs,
      nix-copy-closure,
    }:
    let
      system =
        pkgs: kind:
        pkgs.linkFarm kind (
          import ./configure.nix {
            inherit pkgs kind;
            inherit (nixpkgs) lib;
            module = nix-copy-closure."${kind}Modules".default;
          }
        );
    in
    {
      packages = builtins.mapAttrs (_system: pkgs: {
        default = pkgs.linkFarm "systems" (
          nixpkgs.lib.genAttrs [
            "nixos"
            "darwin"
            "home"
          ] (system pkgs)
        );
      }) nixpkgs.legacyPackages;
    };
}
