# Completion for fish. The program itself says what can come next.
function __pfdivert_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l lines ($words[1] complete -- $words[2..] "$word" 2>/dev/null)
    switch "$lines[1]"
        case FILES
            __fish_complete_path "$word"
        case FOLDERS
            __fish_complete_directories "$word"
        case '*'
            printf '%s\n' $lines
    end
end
complete -c pfdivert -f -a '(__pfdivert_complete)'
