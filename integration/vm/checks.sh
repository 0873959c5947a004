# How the scripts of this folder say what they found: a line a check, and how many there were. To be sourced.
passed=0 failed=0 skipped=0

# Compares: NAME FOUND WANTED.
is() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1: found \`$2\`, wanted \`$3\`"
    fi
}
# NAME STRING PART
has() {
    case $2 in
        *"$3"*) is "$1" yes yes ;;
        *) is "$1" "$2" "…$3…" ;;
    esac
}
# A check that this machine can't make: NAME REASON.
skip() {
    skipped=$((skipped + 1))
    echo "skipped $1: $2"
}
# How it went, as the last thing.
summary() {
    echo "# $passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
