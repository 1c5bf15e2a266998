#compdef nix-copy-closure

autoload -U is-at-least

_nix-copy-closure() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--transport=[Whose SSH is spoken \[default\: openssh, if this program was built with it\]]:NAME:((openssh\:"The program ssh, with all of its configuration"
libssh2\:"The library libssh2, where there is no such program"))' \
'--stall-timeout=[End the connection when nothing has moved for so long; 0 waits for ever]:SECONDS:_default' \
'--store=[The local store\: a directory (its files are in DIR/nix/store), '\''local?root=DIR'\'', or '\''local'\'']:URI:_default' \
'(--serve)--remote-store=[The store on HOST, as '\''nix-store --store'\'' takes it there\: a directory, '\''local?root=/mnt'\'']:URI:_default' \
'(--serve)--remote-program=[The program to run on HOST in the place of '\''nix-store'\'', which is else found in the usual places]:PROGRAM:_default' \
'--log-format=[How progress is shown\: a bar on a terminal, else a line per path]:FORMAT:((raw\:"One line per path"
raw-with-logs\:"Same as raw"
bar\:"A bar on a terminal, same as raw elsewhere"
bar-with-logs\:"A bar, with one line per path above it"
multiline\:"Same as bar"
multiline-with-logs\:"Same as bar-with-logs"
internal-json\:"For programs\: lines of '\''@nix'\'' and JSON"))' \
'--graph=[Draw what is copied as a graph into FILE, which ends in .svg or .dot]:FILE:_files' \
'--completions=[Print the completions for a shell, and do nothing else]:SHELL:(bash elvish fish powershell zsh)' \
'*--option=[A setting of Nix, as in nix.conf; '\''-v'\'' names those that have no effect on a copy]:NAME:_default:NAME:_default' \
'--to[Copy to HOST (the default)]' \
'--from[Copy from HOST]' \
'--include-outputs[Also copy the outputs of derivations in the closure, as far as they are valid at the source]' \
'--stdin[Take paths from standard input too, one per line]' \
'-k[Copy all that can be copied, say what could not be, and exit with 4]' \
'--keep-going[Copy all that can be copied, say what could not be, and exit with 4]' \
'--no-keep-going[Undoes --keep-going]' \
'-n[Say what would be copied, and change nothing anywhere]' \
'--dry-run[Say what would be copied, and change nothing anywhere]' \
'-s[Let the receiving side get what it can from its binary caches first; the rest is sent]' \
'--use-substitutes[Let the receiving side get what it can from its binary caches first; the rest is sent]' \
'--substitute-on-destination[Let the receiving side get what it can from its binary caches first; the rest is sent]' \
'--gzip[Compress the SSH connection]' \
'--bzip2[The same as --gzip, with a warning]' \
'--xz[The same as --gzip, with a warning]' \
'(--serve)--remote-sudo[Run the program on HOST as root, through '\''sudo -n'\'' (which must need no password)]' \
'*-v[Say more about what happens; repeat for details, from four times on those of ssh]' \
'*--verbose[Say more about what happens; repeat for details, from four times on those of ssh]' \
'--quiet[Say nothing but errors]' \
'--debug[Say everything (the same as -vvvvv)]' \
'--show-progress[Show a progress bar, which is the default on a terminal]' \
'--json[Report on standard output, as one JSON object, what was done (with --dry-run\: would be)]' \
'--tree[Draw what is copied as a tree, largest closures first]' \
'-h[Print help (with --help\: more of it)]' \
'--help[Print help (with --help\: more of it)]' \
'-V[Print the version]' \
'--version[Print the version]' \
'(--to --from)--serve[Serve a store over standard input and output, as '\''nix-store --serve'\'' does]' \
'--write[Let the client of --serve add paths]' \
'--manual[Print the manual page, and do nothing else]' \
'::host -- The other machine\: \[user@\]host\[\:port\], also as ssh\://...; '\''localhost'\'' needs no ssh:_default' \
'*::paths -- Store paths, links to them, or anything below them; @FILE takes them from a file, one per line:_default' \
&& ret=0
}

(( $+functions[_nix-copy-closure_commands] )) ||
_nix-copy-closure_commands() {
    local commands; commands=()
    _describe -t commands 'nix-copy-closure commands' commands "$@"
}

if [ "$funcstack[1]" = "_nix-copy-closure" ]; then
    _nix-copy-closure "$@"
else
    compdef _nix-copy-closure nix-copy-closure
fi
