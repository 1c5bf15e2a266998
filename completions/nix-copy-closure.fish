complete -c nix-copy-closure -l transport -d 'Whose SSH is spoken [default: openssh, if this program was built with it]' -r -f -a "openssh\t'The program ssh, with all of its configuration'
libssh2\t'The library libssh2, where there is no such program'"
complete -c nix-copy-closure -l stall-timeout -d 'End the connection when nothing has moved for so long; 0 waits for ever' -r
complete -c nix-copy-closure -l store -d 'The local store: a directory (its files are in DIR/nix/store), \'local?root=DIR\', or \'local\'' -r
complete -c nix-copy-closure -l remote-store -d 'The store on HOST, as \'nix-store --store\' takes it there: a directory, \'local?root=/mnt\'' -r
complete -c nix-copy-closure -l remote-program -d 'The program to run on HOST in the place of \'nix-store\', which is else found in the usual places' -r
complete -c nix-copy-closure -l log-format -d 'How progress is shown: a bar on a terminal, else a line per path' -r -f -a "raw\t'One line per path'
raw-with-logs\t'Same as raw'
bar\t'A bar on a terminal, same as raw elsewhere'
bar-with-logs\t'A bar, with one line per path above it'
multiline\t'Same as bar'
multiline-with-logs\t'Same as bar-with-logs'
internal-json\t'For programs: lines of \'@nix\' and JSON'"
complete -c nix-copy-closure -l graph -d 'Draw what is copied as a graph into FILE, which ends in .svg or .dot' -r -F
complete -c nix-copy-closure -l completions -d 'Print the completions for a shell, and do nothing else' -r -f -a "bash\t''
elvish\t''
fish\t''
powershell\t''
zsh\t''"
complete -c nix-copy-closure -l option -d 'A setting of Nix, as in nix.conf; \'-v\' names those that have no effect on a copy' -r
complete -c nix-copy-closure -l to -d 'Copy to HOST (the default)'
complete -c nix-copy-closure -l from -d 'Copy from HOST'
complete -c nix-copy-closure -l include-outputs -d 'Also copy the outputs of derivations in the closure, as far as they are valid at the source'
complete -c nix-copy-closure -l stdin -d 'Take paths from standard input too, one per line'
complete -c nix-copy-closure -s k -l keep-going -d 'Copy all that can be copied, say what could not be, and exit with 4'
complete -c nix-copy-closure -l no-keep-going -d 'Undoes --keep-going'
complete -c nix-copy-closure -s n -l dry-run -d 'Say what would be copied, and change nothing anywhere'
complete -c nix-copy-closure -s s -l use-substitutes -l substitute-on-destination -d 'Let the receiving side get what it can from its binary caches first; the rest is sent'
complete -c nix-copy-closure -l gzip -d 'Compress the SSH connection'
complete -c nix-copy-closure -l bzip2 -d 'The same as --gzip, with a warning'
complete -c nix-copy-closure -l xz -d 'The same as --gzip, with a warning'
complete -c nix-copy-closure -l remote-sudo -d 'Run the program on HOST as root, through \'sudo -n\' (which must need no password)'
complete -c nix-copy-closure -s v -l verbose -d 'Say more about what happens; repeat for details, from four times on those of ssh'
complete -c nix-copy-closure -l quiet -d 'Say nothing but errors'
complete -c nix-copy-closure -l debug -d 'Say everything (the same as -vvvvv)'
complete -c nix-copy-closure -l show-progress -d 'Show a progress bar, which is the default on a terminal'
complete -c nix-copy-closure -l json -d 'Report on standard output, as one JSON object, what was done (with --dry-run: would be)'
complete -c nix-copy-closure -l tree -d 'Draw what is copied as a tree, largest closures first'
complete -c nix-copy-closure -s h -l help -d 'Print help (with --help: more of it)'
complete -c nix-copy-closure -s V -l version -d 'Print the version'
complete -c nix-copy-closure -l serve -d 'Serve a store over standard input and output, as \'nix-store --serve\' does'
complete -c nix-copy-closure -l write -d 'Let the client of --serve add paths'
complete -c nix-copy-closure -l manual -d 'Print the manual page, and do nothing else'
