complete -c nix-copy-closure -l compress -d 'Compress paths on their way: \'auto\', \'none\', \'gzip\', \'zstd\', or \'zstd:LEVEL\' (1 to 19)' -r
complete -c nix-copy-closure -l connections -d 'Spread what is copied over up to N channels of the one login: \'auto\', or 1 to 7; 1 is none beside the usual ones' -r
complete -c nix-copy-closure -l bwlimit -d 'Use no more than RATE of the line, in each direction: KiB per second, or with a unit such as \'m\' or \'MB\', as with rsync; 0 is no limit' -r
complete -c nix-copy-closure -l transport -d 'SSH implementation to use [default: openssh]' -r -f -a "openssh\t'The ssh program, with all of its configuration'
libssh2\t'The libssh2 library, for machines without an ssh program'"
complete -c nix-copy-closure -l stall-timeout -d 'Give up when nothing has been transferred for this long; 0 waits forever' -r
complete -c nix-copy-closure -l retries -d 'When the connection is lost, connect again and send the rest; give up after N tries in a row that brought nothing' -r
complete -c nix-copy-closure -l add-root -d 'Then make LINK, on the receiving side, a symlink to the path that keeps it from the garbage collector' -r
complete -c nix-copy-closure -l profile -d 'Then make the path, on the receiving side, the current generation of PROFILE' -r
complete -c nix-copy-closure -l store -d 'The local store: a directory DIR (with its files in DIR/nix/store), \'local?root=DIR\', \'local\', or \'daemon\'; with \'ssh://...\', another host in its place' -r
complete -c nix-copy-closure -l remote-store -d 'The store on HOST, as \'nix-store --store\' takes it there' -r
complete -c nix-copy-closure -l remote-program -d 'The program to run on HOST instead of \'nix-store\', which otherwise is found automatically' -r
complete -c nix-copy-closure -l sign-key -d 'Sign each path on its way with the secret key in FILE; may be repeated' -r -F
complete -c nix-copy-closure -l log-format -d 'How to show progress: by default a bar on a terminal, one line per path elsewhere' -r -f -a "raw\t'One line per path'
raw-with-logs\t'Same as raw'
bar\t'A bar on a terminal, same as raw elsewhere'
bar-with-logs\t'A bar, with one line per path above it'
multiline\t'Same as bar'
multiline-with-logs\t'Same as bar-with-logs'
internal-json\t'For programs: lines of \'@nix\' and JSON'"
complete -c nix-copy-closure -l graph -d 'Write what is copied as a graph to FILE, which ends in .svg or .dot' -r -F
complete -c nix-copy-closure -l completions -d 'Print the completions for a shell' -r -f -a "bash\t''
elvish\t''
fish\t''
powershell\t''
zsh\t''"
complete -c nix-copy-closure -l option -d 'A setting of Nix, as in nix.conf; \'-v\' names those that have no effect on a copy' -r
complete -c nix-copy-closure -l to -d 'Copy to HOST (the default)'
complete -c nix-copy-closure -l from -d 'Copy from HOST; with \'--to\' and another host, from one to the other'
complete -c nix-copy-closure -l include-outputs -d 'Also copy the valid outputs of every derivation in the closure'
complete -c nix-copy-closure -l stdin -d 'Also read paths from standard input, one per line'
complete -c nix-copy-closure -s k -l keep-going -d 'If some paths cannot be copied, copy all others, and exit with status 4'
complete -c nix-copy-closure -l no-keep-going -d 'Undo --keep-going'
complete -c nix-copy-closure -s n -l dry-run -d 'Print what would be copied, and change nothing on either machine'
complete -c nix-copy-closure -s s -l use-substitutes -l substitute-on-destination -d 'Let the receiving side fetch what it can from its substituters first, and send the rest'
complete -c nix-copy-closure -l gzip -d 'Compress the SSH connection, as upstream\'s option does; --compress is better at it'
complete -c nix-copy-closure -l no-check-space -d 'Begin although the disk of this machine seems to have no room for all that is fetched'
complete -c nix-copy-closure -l check-space -d 'Undo --no-check-space'
complete -c nix-copy-closure -l bzip2 -d 'The same as --gzip, with a warning'
complete -c nix-copy-closure -l xz -d 'The same as --gzip, with a warning'
complete -c nix-copy-closure -l remote-sudo -d 'Run the program on HOST as root with \'sudo -n\', which must not need a password'
complete -c nix-copy-closure -l sign -d 'Sign each path on its way with the keys in the setting \'secret-key-files\''
complete -c nix-copy-closure -l check-sigs -d 'Copy only paths that a key in this machine\'s \'trusted-public-keys\' has signed, or that are content-addressed'
complete -c nix-copy-closure -l no-check-sigs -d 'Let the receiving side decide (the default), and try even what it is known to refuse'
complete -c nix-copy-closure -s v -l verbose -d 'Say more about what happens; repeat for details (from -vvvv on, ssh is verbose too)'
complete -c nix-copy-closure -l quiet -d 'Print errors and nothing else'
complete -c nix-copy-closure -l debug -d 'Print everything (the same as -vvvvv)'
complete -c nix-copy-closure -l show-progress -d 'Show a progress bar, which is the default on a terminal'
complete -c nix-copy-closure -l json -d 'Print a report as one JSON object; with --dry-run, a report of what would be copied'
complete -c nix-copy-closure -l tree -d 'Print what is copied as a tree, largest closures first (with --json, on standard error)'
complete -c nix-copy-closure -l serve -d 'Serve the store over standard input and output, as \'nix-store --serve\' does'
complete -c nix-copy-closure -l write -d 'Allow the client of --serve to add paths'
complete -c nix-copy-closure -s h -l help -d 'Print help (with --help, more of it)'
complete -c nix-copy-closure -s V -l version -d 'Print the version (with -v, also the SSH implementations that are built in)'
complete -c nix-copy-closure -l manual -d 'Print the manual page'
