# shellcheck shell=bash
# What README.md promises, as text: the other scripts source this file, so that
# what they run is what a reader copies. Needs awk, and the repository root as
# the working directory.

# Prints command $1 (1 or 2) of the one code block under `## Quick start`.
# Fails unless that section has exactly one block, of exactly two lines.
quick_start_command() {
    awk -v wanted="$1" '
        function refuse(why) {
            print "README.md: " why > "/dev/stderr"
            refused = 1
            exit 1
        }
        /^```/ {
            fenced = !fenced
            if (section && fenced) blocks++
            next
        }
        !fenced && /^##? / { section = /^## Quick start *$/; if (section) found = 1 }
        section && fenced { command[++lines] = $0 }
        END {
            if (refused) exit 1
            if (!found) refuse("no section `## Quick start`")
            if (blocks != 1) refuse("`## Quick start` has " blocks + 0 " code blocks, not one")
            if (lines != 2) refuse("the block in `## Quick start` has " lines + 0 " lines, not two")
            # A comment would run, and pass; a prompt cannot be pasted.
            if (command[wanted] !~ /^[A-Za-z]/) refuse("line " wanted " of `## Quick start` is no command")
            print command[wanted]
        }
    ' README.md
}

# Prints the first block fenced as ```rust (or ```rust,…). Fails if there is none.
first_rust_example() {
    awk '
        /^```rust(,.*)?$/ && !found { found = inside = 1; next }
        /^```/ { inside = 0 }
        inside
        END {
            if (!found) {
                print "README.md: no block fenced as ```rust" > "/dev/stderr"
                exit 1
            }
        }
    ' README.md
}
