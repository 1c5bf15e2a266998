# Evaluated by real Nix; see README.md. Nothing here is ever built.
let
  system = "x86_64-linux";
  builder = "/bin/sh";
  dep = derivation {
    name = "dep"; inherit system builder;
    outputs = [ "out" "dev" ];
    args = [ "-c" "for o in $outputs; do echo > \${!o}; done" ];
    src = builtins.toFile "source.txt" "a source\n";
  };
  flat = derivation {
    name = "flat.tar"; inherit system builder;
    outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
  };
  # The same output by another way: Nix takes both for the same input.
  mirror = derivation {
    name = "flat.tar"; inherit system builder;
    urls = "a mirror";
    outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
  };
  recursive = derivation {
    name = "recursive"; inherit system builder;
    outputHashMode = "recursive"; outputHashAlgo = "sha1";
    outputHash = "f572d396fae9206628714fb2ce00f72e94f2258f";
    # A fixed output's inputs have no part in its dependants' paths.
    needs = dep;
  };
  top = derivation {
    name = "top"; inherit system builder;
    outputs = [ "out" "lib" ];
    args = [ "-c" "tab\there \"quoted\" back\\slash\nnext line\r" ];
    inherit dep flat mirror recursive;
    inherit (dep) dev;
    text = "ZÃ¤une ÿ";
    empty = "";
  };
  structured = derivation {
    name = "structured"; inherit system builder;
    __structuredAttrs = true; outputs = [ "out" "doc" ];
    list = [ 1 2 top.lib ];
  };
  floating = derivation {
    name = "floating"; inherit system builder;
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
    outputs = [ "out" "dev" ];
    inherit dep;
  };
  deferred = derivation { name = "deferred"; inherit system builder floating; };
  impure = derivation {
    name = "impure"; inherit system builder; __impure = true;
    outputHashMode = "recursive"; outputHashAlgo = "sha256";
  };
  upon-impure = derivation {
    name = "upon-impure"; inherit system builder impure;
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
  };
in
{ inherit dep flat mirror recursive top structured floating deferred impure upon-impure; }
