# Completions of husk for fish: husk itself says what may stand where the cursor is.
function __husk_complete
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l answer ($words[1] internal complete words -- $words[2..-1] "$token" 2>/dev/null)
    if test (count $answer) -gt 1
        printf '%s\n' $answer[2..-1]
    else if test "$answer[1]" = files
        __fish_complete_path "$token"
    end
end
complete -c husk -f -a '(__husk_complete)'
