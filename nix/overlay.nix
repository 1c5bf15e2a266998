final: prev: {
  nix-copy-closure = final.callPackage ./package.nix { };

  # Nix with this program in the place of its own: `.override { nix = pkgs.lix; face = true; }`.
  nix-with-copy-closure = final.callPackage ./with-nix.nix { };
}
