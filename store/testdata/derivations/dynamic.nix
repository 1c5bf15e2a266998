# Dynamic derivations: what a derivation makes is a derivation itself, and wanted are its outputs.
let
  system = "x86_64-linux";
  builder = "/bin/sh";
  maker = derivation {
    name = "made.drv"; inherit system builder;
    __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256";
  };
  plain = derivation { name = "plain"; inherit system builder; };
  user = derivation {
    name = "user"; inherit system builder plain;
    made = builtins.outputOf maker.outPath "out";
    deeper = builtins.outputOf (builtins.outputOf maker.outPath "out") "bin";
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
  };
in { inherit maker plain user; }
