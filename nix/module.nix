# A module for NixOS, nix-darwin and home-manager, given the option that lists installed packages.
installed:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.programs.nix-copy-closure;
in
{
  options = {
    programs.nix-copy-closure = {
      enable = lib.mkEnableOption "the quick nix-copy-closure in the place of the one that comes with Nix";

      package = lib.mkOption {
        type = lib.types.package;
        default = pkgs.callPackage ./package.nix { };
        defaultText = lib.literalMD "the package of this flake";
        description = "The package to use.";
      };

      face = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = ''
          Whether `nix` is this program too: it then does `nix copy` over ssh, and hands everything else on to the real `nix`.
        '';
      };
    };

    # Whatever Nix was chosen, by whatever module: changed where it is read, so nothing has to be chosen again. home-manager
    # allows none.
    nix.package = lib.mkOption {
      apply =
        nix:
        if cfg.enable && nix != null then
          pkgs.callPackage ./with-nix.nix {
            inherit nix;
            inherit (cfg) face;
            nix-copy-closure = cfg.package;
          }
        else
          nix;
    };
  };

  # Also by itself, for where `nix.package` is not what is installed: home-manager, and nix-darwin with another's Nix.
  config = lib.setAttrByPath installed (lib.mkIf cfg.enable [ cfg.package ]);
}
