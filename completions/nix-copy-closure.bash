_nix__copy__closure() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="nix__copy__closure"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        nix__copy__closure)
            opts="-k -n -s -v -h -V -j -K -Q --to --from --include-outputs --stdin --keep-going --dry-run --substitute-on-destination --use-substitutes --gzip --transport --stall-timeout --bzip2 --xz --store --remote-store --remote-program --remote-sudo --verbose --quiet --debug --log-format --show-progress --json --tree --graph --help --version --serve --write --completions --manual --max-jobs --cores --timeout --max-silent-time --builders --substituters --trusted-public-keys --trusted-substituters --extra-substituters --extra-trusted-public-keys --experimental-features --extra-experimental-features --connect-timeout --download-attempts --http-connections --netrc-file --keep-failed --no-build-output --fallback --no-gc-warning --readonly-mode --repair --print-build-logs --keep-outputs --no-keep-outputs --keep-derivations --no-keep-derivations --fsync-metadata --no-fsync-metadata --builders-use-substitutes --substitute --no-substitute --option"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --transport)
                    COMPREPLY=($(compgen -W "openssh libssh2" -- "${cur}"))
                    return 0
                    ;;
                --stall-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --store)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --remote-store)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --remote-program)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log-format)
                    COMPREPLY=($(compgen -W "raw raw-with-logs bar bar-with-logs multiline multiline-with-logs internal-json" -- "${cur}"))
                    return 0
                    ;;
                --graph)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --completions)
                    COMPREPLY=($(compgen -W "bash elvish fish powershell zsh" -- "${cur}"))
                    return 0
                    ;;
                --max-jobs)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                -j)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cores)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-silent-time)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --builders)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --substituters)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --trusted-public-keys)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --trusted-substituters)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --extra-substituters)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --extra-trusted-public-keys)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --experimental-features)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --extra-experimental-features)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --connect-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --download-attempts)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --http-connections)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --netrc-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --option)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _nix__copy__closure -o nosort -o bashdefault -o default nix-copy-closure
else
    complete -F _nix__copy__closure -o bashdefault -o default nix-copy-closure
fi
