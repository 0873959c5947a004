# Completions of husk for bash: husk itself says what may stand where the cursor is.
_husk() {
    local kind='' text
    COMPREPLY=()
    {
        read -r kind
        while IFS=$'\t' read -r text _; do COMPREPLY+=("$text"); done
    } < <("${COMP_WORDS[0]/#\~/$HOME}" internal complete line -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 0 && $kind == files ]]; then
        compopt -o default 2>/dev/null
    elif [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _husk husk
