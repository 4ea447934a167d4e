# Completion for bash. It asks the program's own help, and so knows what that version takes.
_configsync_server() {
  local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} first=${COMP_WORDS[1]-} commands choices=
  commands=$("$program" help 2>/dev/null | sed -nE 's/^  ([a-z]+( [a-z]+)?)  +.*/\1/p')
  if [ "$COMP_CWORD" = 1 ]; then
    choices="$(cut -d ' ' -f 1 <<<"$commands") help --help --version"
  elif [ "$COMP_CWORD" = 2 ] && grep -q "^$first " <<<"$commands"; then
    choices="$(sed -n "s/^$first //p" <<<"$commands") --help"
  elif [ -n "$current" ]; then
    grep -q "^$first " <<<"$commands" && first="$first ${COMP_WORDS[2]}"
    # shellcheck disable=SC2086  # two words
    choices="$("$program" $first --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*') --help"
  fi
  # Where there is no choice, bash offers files and folders.
  mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current" | sort -u)
}
complete -o default -F _configsync_server configsync-server
