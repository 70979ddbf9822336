# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_longpin_global_optspecs
    string join \n v/verbose h/help V/version
end

function __fish_longpin_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_longpin_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_longpin_using_subcommand
    set -l cmd (__fish_longpin_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c longpin -n "__fish_longpin_needs_command" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_needs_command" -s V -l version -d 'Print version'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "demo" -d 'Show the hazard and the cure on this host: an io_uring buffer on tmpfs, and a truncate'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "guard" -d 'Start, stop or look at the guard'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "ls" -d 'List the files that are pinned now: range, pages, process, consumer'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "why" -d 'Everything the guard knows of one file: who holds it, and what was refused'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "watch" -d 'Show holds that begin, end or break, operations that are refused, and what on-demand regions lose'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "deny" -d 'Say of one file that nobody may pin it long-term; who does so is killed'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "allow" -d 'Take that back'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "release" -d 'Give up the protection of a hold whose pages are still pinned'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "doctor" -d 'What this host can enforce, claim by claim, and what to change if it cannot'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "check" -d 'May this file be pinned, lent to a device or swapped to? If not, why not, and what cures it'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "try-pin" -d 'Register the file on standard input, and let go: what a library tries before a pin that might hang'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "prepare" -d 'Make a file fit to be lent: all its blocks there, written, in place, and its own'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "swapon" -d 'Swap to a file: the checks, with `--prepare` the preparation, mkswap\'s header, swapon(2)'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "swapoff" -d 'End swapping to a file'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "hold" -d 'Hold a file while a command runs, as if the kernel swapped to it'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "extents" -d 'Where a file\'s bytes lie: offsets on its block device, in bytes'
complete -c longpin -n "__fish_longpin_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longpin -n "__fish_longpin_using_subcommand demo" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand demo" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "start" -d 'Load the guard into the kernel, prove it, and leave it there; no process stays'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "stop" -d 'Take the guard out of the kernel'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "status" -d 'What the guard enforces, and what it has done. Exit status 1 when it is not running'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "reload" -d 'Put the rules of /etc/longpin/longpin.conf into force anew, in one step'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "sweep" -d 'Look at every page frame for pins that were not seen, so that fewer files need a walk'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "check-config" -d 'Read the rules and say what they mean on this host, without putting them into force'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and not __fish_seen_subcommand_from start stop status reload sweep check-config help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s l -l level -d 'What is refused of pinned files, where no rule says otherwise' -r -f -a "layout\t'What would take pages or blocks of the range away from the file'
swapfile\t'All that is refused of an active swap file: also writes, and names that go away'"
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s m -l max-files -d 'Room for so many pinned files, 65,536 if not said: 16 bytes each, and 400 while it is pinned' -r
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s w -l walk-budget -d 'Look for at most MS milliseconds whether a page of a file is pinned; then refuse, and count the walk as unfinished [default: 5000]' -r
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s a -l audit -d 'Record what would be refused, and refuse nothing'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s p -l partial -d 'Also where this kernel can enforce a part of the claims only'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from stop" -s f -l force -d 'Also with live holds: the files lose their protection'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from stop" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from status" -s J -l json -d 'One JSON object'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from reload" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from reload" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from sweep" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from sweep" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from check-config" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from check-config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "start" -d 'Load the guard into the kernel, prove it, and leave it there; no process stays'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "stop" -d 'Take the guard out of the kernel'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "status" -d 'What the guard enforces, and what it has done. Exit status 1 when it is not running'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "reload" -d 'Put the rules of /etc/longpin/longpin.conf into force anew, in one step'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "sweep" -d 'Look at every page frame for pins that were not seen, so that fewer files need a walk'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "check-config" -d 'Read the rules and say what they mean on this host, without putting them into force'
complete -c longpin -n "__fish_longpin_using_subcommand guard; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s o -l output -d 'Which columns, in which order' -r -f -a "id\t'Number of the hold, for `release`'
kind\t'pin; explicit: asked for; broken: pages left the file while pinned; swap: an active swap file; on-demand: a region that the hardware faults in, without a pin'
level\t'What is refused: layout, swapfile, or none'
path\t'The file, as seen from here'
start\t'First pinned byte'
end\t'First byte after the last pinned one'
pages\t'Pages pinned now'
pid\t'Process'
command\t'Its name'
consumer\t'Who in the kernel pinned, or uses the region'
cgroup\t'cgroup v2 path'
since\t'Time of the first pin, or of the region\'s registration'
uid\t'User'
broken\t'Pages that left the file while pinned'
why\t'Why it is a hold, or is none'"
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s a -l all -d 'Also pins that are no holds, and why; and on-demand regions, which hold nothing'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s J -l json -d 'One JSON object: {"version":1,"holds":[...]}; ranges in bytes'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s b -l bytes -d 'START and END in bytes, not in human units'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s n -l noheadings -d 'No header line'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s r -l raw -d 'One blank between columns, blanks within them as \\x20'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand why" -s J -l json -d 'One JSON object'
complete -c longpin -n "__fish_longpin_using_subcommand why" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand why" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand watch" -l verify -d 'Also read the block maps of files held at level swapfile, at least every SECONDS, and tell when blocks have moved' -r
complete -c longpin -n "__fish_longpin_using_subcommand watch" -s l -l last -d 'Show the last 1,024 events, and end'
complete -c longpin -n "__fish_longpin_using_subcommand watch" -s J -l json -d 'One JSON object a line'
complete -c longpin -n "__fish_longpin_using_subcommand watch" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand deny" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand deny" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand allow" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand allow" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand release" -s f -l force -d 'Also while its pages are pinned: the device may lose the file'
complete -c longpin -n "__fish_longpin_using_subcommand release" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand release" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand doctor" -s J -l json -d 'One JSON object: {"version":1,"verdict":...,"checks":[...],"claims":[...]}'
complete -c longpin -n "__fish_longpin_using_subcommand doctor" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand check" -l for -d 'What it is wanted for' -r -f -a "pages\t'A device pins its pages: RDMA, io_uring, VFIO'
blocks\t'A device reads and writes its blocks, behind the file system\'s back'
swap\t'The kernel swaps to it'"
complete -c longpin -n "__fish_longpin_using_subcommand check" -l range -d 'Only these bytes of it; K, M, G and T are powers of 1024' -r
complete -c longpin -n "__fish_longpin_using_subcommand check" -s d -l device -d 'For pages: who is to get them, `io_uring` or an RDMA device such as rxe0' -r
complete -c longpin -n "__fish_longpin_using_subcommand check" -s a -l access -d 'What the device does with them; io_uring always pins for writing' -r -f -a "read\t'It, or the other end through it, reads'
read-write\t'It reads and writes'"
complete -c longpin -n "__fish_longpin_using_subcommand check" -s r -l registration -d 'Which kind of registration' -r -f -a "any\t'On demand where the device can, else a pin'
on-demand\t'On demand, or refused'
pin\t'A pin'"
complete -c longpin -n "__fish_longpin_using_subcommand check" -s l -l level -d 'What the file is to be held at meanwhile; swapfile has it checked as for `hold`' -r -f -a "layout\t'What would take pages or blocks of the range away from the file'
swapfile\t'All that is refused of an active swap file: also writes, and names that go away'"
complete -c longpin -n "__fish_longpin_using_subcommand check" -l try -d 'Also try it for so many seconds, in a process that is killed then' -r
complete -c longpin -n "__fish_longpin_using_subcommand check" -s J -l json -d 'One JSON object: {"version":1,"verdict":...,"reasons":[...]}'
complete -c longpin -n "__fish_longpin_using_subcommand check" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand try-pin" -l device -d '`io_uring` or an RDMA device' -r
complete -c longpin -n "__fish_longpin_using_subcommand try-pin" -l range -d 'Bytes' -r
complete -c longpin -n "__fish_longpin_using_subcommand try-pin" -l access -d 'What the device does' -r -f -a "read\t'It, or the other end through it, reads'
read-write\t'It reads and writes'"
complete -c longpin -n "__fish_longpin_using_subcommand try-pin" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand try-pin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand prepare" -s s -l size -d 'Grow it to so many bytes, or create it; K, M, G and T are powers of 1024' -r
complete -c longpin -n "__fish_longpin_using_subcommand prepare" -s i -l immutable -d 'At the end make it immutable: without a guard, the weakest way to keep it as it is'
complete -c longpin -n "__fish_longpin_using_subcommand prepare" -s m -l mutable -d 'Only take that back, and change nothing else'
complete -c longpin -n "__fish_longpin_using_subcommand prepare" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand prepare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s s -l size -d 'With --prepare: grow it to so many bytes, or create it' -r
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s L -l label -d 'The swap area\'s label, 16 bytes at most' -r
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s p -l prepare -d 'Prepare it first, as `longpin prepare` does'
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s f -l force -d 'Also when it has data, which is lost'
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand swapon" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand swapoff" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand swapoff" -s h -l help -d 'Print help'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s b -l backend -d 'Who refuses' -r -f -a "bpf\t'BPF LSM programs; the host\'s list of security modules must have bpf'
swap-header\t'The kernel itself, which swaps to one page of the file; gives up the file\'s first 8 KiB'"
complete -c longpin -n "__fish_longpin_using_subcommand hold" -l range -d 'Only these bytes of it (level layout; swapfile holds the whole file, and checks this range)' -r
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s l -l level -d 'What is refused' -r -f -a "layout\t'What would take pages or blocks of the range away from the file'
swapfile\t'All that is refused of an active swap file: also writes, and names that go away'"
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s w -l wait -d 'Wait so long for it, and for operations that began before; without -n and -w, for ever and 10 s' -r
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s E -l conflict-exit-code -d 'Exit status of a refusal, instead of 1' -r
complete -c longpin -n "__fish_longpin_using_subcommand hold" -l overwrite-head -d 'With --backend swap-header: also if there is data in the first 8 KiB. It is kept in /var/lib/longpin/heads, and put back at the end'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s n -l nonblock -d 'Fail at once if another hold excludes this one'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -l persist -d 'The hold stands until `longpin release`'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -l prepare -d 'First make the file fit, as `longpin prepare` does'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand hold" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand extents" -s J -l json -d 'One JSON object: {"version":1,"path":...,"devices":[...],"extents":[...]}'
complete -c longpin -n "__fish_longpin_using_subcommand extents" -s n -l noheadings -d 'No header line'
complete -c longpin -n "__fish_longpin_using_subcommand extents" -s v -l verbose -d 'Show causes, and what libbpf and the verifier say'
complete -c longpin -n "__fish_longpin_using_subcommand extents" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "demo" -d 'Show the hazard and the cure on this host: an io_uring buffer on tmpfs, and a truncate'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "guard" -d 'Start, stop or look at the guard'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "ls" -d 'List the files that are pinned now: range, pages, process, consumer'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "why" -d 'Everything the guard knows of one file: who holds it, and what was refused'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "watch" -d 'Show holds that begin, end or break, operations that are refused, and what on-demand regions lose'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "deny" -d 'Say of one file that nobody may pin it long-term; who does so is killed'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "allow" -d 'Take that back'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "release" -d 'Give up the protection of a hold whose pages are still pinned'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "doctor" -d 'What this host can enforce, claim by claim, and what to change if it cannot'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "check" -d 'May this file be pinned, lent to a device or swapped to? If not, why not, and what cures it'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "try-pin" -d 'Register the file on standard input, and let go: what a library tries before a pin that might hang'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "prepare" -d 'Make a file fit to be lent: all its blocks there, written, in place, and its own'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "swapon" -d 'Swap to a file: the checks, with `--prepare` the preparation, mkswap\'s header, swapon(2)'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "swapoff" -d 'End swapping to a file'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "hold" -d 'Hold a file while a command runs, as if the kernel swapped to it'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "extents" -d 'Where a file\'s bytes lie: offsets on its block device, in bytes'
complete -c longpin -n "__fish_longpin_using_subcommand help; and not __fish_seen_subcommand_from demo guard ls why watch deny allow release doctor check try-pin prepare swapon swapoff hold extents help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "start" -d 'Load the guard into the kernel, prove it, and leave it there; no process stays'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "stop" -d 'Take the guard out of the kernel'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "status" -d 'What the guard enforces, and what it has done. Exit status 1 when it is not running'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "reload" -d 'Put the rules of /etc/longpin/longpin.conf into force anew, in one step'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "sweep" -d 'Look at every page frame for pins that were not seen, so that fewer files need a walk'
complete -c longpin -n "__fish_longpin_using_subcommand help; and __fish_seen_subcommand_from guard" -f -a "check-config" -d 'Read the rules and say what they mean on this host, without putting them into force'
