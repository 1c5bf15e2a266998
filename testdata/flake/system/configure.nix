# What a system comes to: the options of its kind, our module, and a user's own lines.
{ pkgs, lib, kind, module }:
let
  declared = {
    nixos = {
      options.nix.package = lib.mkOption { default = pkgs.nix; };
      options.environment.systemPackages = lib.mkOption { default = [ ]; };
    };
    darwin = declared.nixos;
    # It has no Nix of its own unless one is named.
    home = {
      options.nix.package = lib.mkOption { default = null; };
      options.home.packages = lib.mkOption { default = [ ]; };
    };
  };
  configure =
    lines:
    (lib.evalModules {
      modules = [
        declared.${kind}
        module
        { config = lines; }
      ];
      specialArgs = { inherit pkgs; };
    }).config;
  installed = config: config.environment.systemPackages or config.home.packages;

  off = configure { };
  on = configure { programs.nix-copy-closure.enable = true; };
  named = configure {
    programs.nix-copy-closure.enable = true;
    nix.package = pkgs.nix;
  };
  withFace = configure {
    programs.nix-copy-closure.enable = true;
    programs.nix-copy-closure.face = true;
    nix.package = pkgs.nix;
  };
in
# Nothing is changed until it is asked for.
assert installed off == [ ];
assert off.nix.package == (if kind == "home" then null else pkgs.nix);
assert kind == "home" -> on.nix.package == null;
assert kind != "home" -> on.nix.package == named.nix.package;
{
  installed = builtins.head (installed on);
  nix = named.nix.package;
  rebuild = pkgs.nixos-rebuild.override { nix = named.nix.package; };
  face = withFace.nix.package;
}
