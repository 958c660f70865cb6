# Completion for bash 4 and later. The program itself says what can come next.
_pfdivert() {
	local IFS=$'\n' cur=${COMP_WORDS[COMP_CWORD]} words
	words=$("${COMP_WORDS[0]/#\~/$HOME}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1)
	case $words in
	FILES)
		compopt -o filenames
		COMPREPLY=($(compgen -f -- "$cur"))
		;;
	FOLDERS)
		compopt -o filenames
		COMPREPLY=($(compgen -d -- "$cur"))
		;;
	*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
	esac
}
complete -F _pfdivert pfdivert
