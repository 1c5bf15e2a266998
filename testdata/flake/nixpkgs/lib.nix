let
  inherit (builtins)
    attrNames
    concatLists
    concatStringsSep
    elemAt
    filter
    foldl'
    fromTOML
    head
    isAttrs
    isFunction
    length
    listToAttrs
    mapAttrs
    parseDrvName
    readFile
    tail
    zipAttrsWith
    ;
  output = name: package: package.${name} or package;
in
rec {
  genAttrs =
    names: make:
    listToAttrs (
      map (name: {
        inherit name;
        value = make name;
      }) names
    );
  importTOML = file: fromTOML (readFile file);
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  optionalString = condition: text: if condition then text else "";
  setAttrByPath = path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
  getVersion = package: package.version or (parseDrvName package.name).version;
  getBin = output "bin";
  getMan = output "man";
  getDev = output "dev";
  licenses = {
    mit.spdxId = "MIT";
    asl20.spdxId = "Apache-2.0";
  };
  platforms.unix = [ ];

  # A set of files is the list of their paths; all of them have to be there.
  fileset = {
    unions = map (file: assert builtins.pathExists file; file);
    toSource =
      { root, fileset }:
      let
        wanted = map toString fileset;
        within = path: folder: path == folder || builtins.substring 0 (builtins.stringLength folder + 1) path == folder + "/";
      in
      builtins.path {
        path = root;
        name = "source";
        filter = path: _type: builtins.any (folder: within path folder || within folder path) wanted;
      };
  };

  types = {
    package = "package";
    bool = "bool";
  };
  mkOption = option: option // { _type = "option"; };
  mkEnableOption =
    what:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  literalMD = text: { inherit text; };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };

  # Options may be declared in parts, definitions are merged (the last of several values counts, lists are joined), and nothing
  # may be defined that is not declared.
  evalModules =
    { modules, specialArgs }:
    let
      arguments = specialArgs // {
        inherit config lib;
      };
      lib = import ./lib.nix;
      loaded = map (module: if isFunction module then module arguments else module) modules;
      isOption = value: isAttrs value && value._type or null == "option";
      declare = zipAttrsWith (
        _name: values: if builtins.any isOption values then foldl' (all: one: all // one) { } values else declare values
      );
      options = declare (map (module: module.options or { }) loaded);
      # What a definition amounts to: a list of none or one.
      resolve =
        value:
        if isAttrs value && value._type or null == "if" then
          (if value.condition then resolve value.content else [ ])
        else
          [ value ];
      definitions = map (module: module.config or { }) loaded;
      read =
        path: options: definitions:
        let
          unknown = filter (name: !(options ? ${name})) (concatLists (map attrNames definitions));
        in
        if unknown != [ ] then
          throw "no option ${concatStringsSep "." (path ++ [ (head unknown) ])}"
        else
          mapAttrs (
            name: option:
            let
              values = concatLists (
                map (definition: if definition ? ${name} then resolve definition.${name} else [ ]) definitions
              );
              value =
                if values == [ ] then
                  option.default
                else if builtins.isList (head values) then
                  concatLists values
                else
                  elemAt values (length values - 1);
            in
            if isOption option then
              (option.apply or (value: value)) value
            else
              read (path ++ [ name ]) option values
          ) options;
      config = read [ ] options definitions;
    in
    {
      inherit config options;
    };
}
