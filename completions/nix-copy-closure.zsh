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
'(--serve)--compress=[Compress paths on their way\: '\''auto'\'', '\''none'\'', '\''gzip'\'', '\''zstd'\'', or '\''zstd\:LEVEL'\'' (1 to 19)]:METHOD:_default' \
'(--serve)--connections=[Spread what is copied over up to N channels of the one login\: '\''auto'\'', or 1 to 7; 1 is none beside the usual ones]:N:_default' \
'(--serve)--bwlimit=[Use no more than RATE of the line, in each direction\: KiB per second, or with a unit such as '\''m'\'' or '\''MB'\'', as with rsync; 0 is no limit]:RATE:_default' \
'--transport=[SSH implementation to use \[default\: openssh\]]:NAME:((openssh\:"The ssh program, with all of its configuration"
libssh2\:"The libssh2 library, for machines without an ssh program"))' \
'--stall-timeout=[Give up when nothing has been transferred for this long; 0 waits forever]:SECONDS:_default' \
'(--serve)--retries=[When the connection is lost, connect again and send the rest; give up after N tries in a row that brought nothing]:N:_default' \
'(--serve --profile)--add-root=[Then make LINK, on the receiving side, a symlink to the path that keeps it from the garbage collector]:LINK:_default' \
'(--serve)--profile=[Then make the path, on the receiving side, the current generation of PROFILE]:PROFILE:_default' \
'--store=[The local store\: a directory DIR (with its files in DIR/nix/store), '\''local?root=DIR'\'', '\''local'\'', or '\''daemon'\''; with '\''ssh\://...'\'', another host in its place]:URI:_default' \
'(--serve)--remote-store=[The store on HOST, as '\''nix-store --store'\'' takes it there]:URI:_default' \
'(--serve)--remote-program=[The program to run on HOST instead of '\''nix-store'\'', which otherwise is found automatically]:PROGRAM:_default' \
'(--serve)*--sign-key=[Sign each path on its way with the secret key in FILE; may be repeated]:FILE:_files' \
'--log-format=[How to show progress\: by default a bar on a terminal, one line per path elsewhere]:FORMAT:((raw\:"One line per path"
raw-with-logs\:"Same as raw"
bar\:"A bar on a terminal, same as raw elsewhere"
bar-with-logs\:"A bar, with one line per path above it"
multiline\:"Same as bar"
multiline-with-logs\:"Same as bar-with-logs"
internal-json\:"For programs\: lines of '\''@nix'\'' and JSON"))' \
'--graph=[Write what is copied as a graph to FILE, which ends in .svg or .dot]:FILE:_files' \
'--completions=[Print the completions for a shell]:SHELL:(bash elvish fish powershell zsh)' \
'*--option=[A setting of Nix, as in nix.conf; '\''-v'\'' names those that have no effect on a copy]:NAME:_default:NAME:_default' \
'--to[Copy to HOST (the default)]' \
'--from[Copy from HOST; with '\''--to'\'' and another host, from one to the other]' \
'--include-outputs[Also copy the valid outputs of every derivation in the closure]' \
'--stdin[Also read paths from standard input, one per line]' \
'-k[If some paths cannot be copied, copy all others, and exit with status 4]' \
'--keep-going[If some paths cannot be copied, copy all others, and exit with status 4]' \
'--no-keep-going[Undo --keep-going]' \
'-n[Print what would be copied, and change nothing on either machine]' \
'--dry-run[Print what would be copied, and change nothing on either machine]' \
'-s[Let the receiving side fetch what it can from its substituters first, and send the rest]' \
'--use-substitutes[Let the receiving side fetch what it can from its substituters first, and send the rest]' \
'--substitute-on-destination[Let the receiving side fetch what it can from its substituters first, and send the rest]' \
'--gzip[Compress the SSH connection, as upstream'\''s option does; --compress is better at it]' \
'(--serve)--no-check-space[Begin although the disk of this machine seems to have no room for all that is fetched]' \
'(--serve)--check-space[Undo --no-check-space]' \
'--bzip2[The same as --gzip, with a warning]' \
'--xz[The same as --gzip, with a warning]' \
'(--serve)--remote-sudo[Run the program on HOST as root with '\''sudo -n'\'', which must not need a password]' \
'(--serve)--sign[Sign each path on its way with the keys in the setting '\''secret-key-files'\'']' \
'(--serve)--check-sigs[Copy only paths that a key in this machine'\''s '\''trusted-public-keys'\'' has signed, or that are content-addressed]' \
'(--serve)--no-check-sigs[Let the receiving side decide (the default), and try even what it is known to refuse]' \
'*-v[Say more about what happens; repeat for details (from -vvvv on, ssh is verbose too)]' \
'*--verbose[Say more about what happens; repeat for details (from -vvvv on, ssh is verbose too)]' \
'--quiet[Print errors and nothing else]' \
'--debug[Print everything (the same as -vvvvv)]' \
'--show-progress[Show a progress bar, which is the default on a terminal]' \
'--json[Print a report as one JSON object; with --dry-run, a report of what would be copied]' \
'--tree[Print what is copied as a tree, largest closures first (with --json, on standard error)]' \
'(--to --from)--serve[Serve the store over standard input and output, as '\''nix-store --serve'\'' does]' \
'--write[Allow the client of --serve to add paths]' \
'-h[Print help (with --help, more of it)]' \
'--help[Print help (with --help, more of it)]' \
'-V[Print the version (with -v, also the SSH implementations that are built in)]' \
'--version[Print the version (with -v, also the SSH implementations that are built in)]' \
'--manual[Print the manual page]' \
'::host -- The other machine\: \[user@\]host\[\:port\] or ssh\://...; '\''localhost'\'' is reached without ssh:_default' \
'*::paths -- Store paths, symlinks to them, or files inside them; @FILE reads paths from FILE, one per line:_default' \
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
