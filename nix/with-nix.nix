# A Nix in which `nix-copy-closure` is this program. Tools such as nixos-rebuild put the Nix that they were built with first in
# PATH, so it has to be in there to be called at all.
{
  lib,
  symlinkJoin,
  makeBinaryWrapper,
  nix,
  nix-copy-closure,
  # Whether `nix` is this program too, which then does `nix copy` over ssh and hands everything else on to the real one.
  face ? false,
}:

let
  version = lib.getVersion nix;
in
symlinkJoin {
  # Modules of NixOS ask for the version, by name or attribute, and look at some outputs.
  name = "nix-with-copy-closure-${version}";
  passthru = (nix.passthru or { }) // {
    inherit version;
    man = lib.getMan nix;
    dev = lib.getDev nix;
    unwrapped = nix;
  };
  meta = (nix.meta or { }) // {
    outputsToInstall = [ "out" ];
  };

  paths = [
    (lib.getBin nix)
    (lib.getMan nix)
  ];
  nativeBuildInputs = lib.optional face makeBinaryWrapper;
  postBuild = ''
    cp --recursive --symbolic-link --remove-destination ${nix-copy-closure}/. $out
  ''
  + lib.optionalString face ''
    rm $out/bin/nix
    makeWrapper ${nix-copy-closure}/bin/nix-copy-closure $out/bin/nix \
      --argv0 nix --set-default NCC_NIX ${lib.getBin nix}/bin/nix
  '';
}
