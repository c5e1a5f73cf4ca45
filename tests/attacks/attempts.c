/* One system call that an environment must not get through, chosen by name. Prints `done` or the kernel's answer. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_packet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static long attempt(const char *name, const char *argument) {
    if (!strcmp(name, "ptrace")) return ptrace(PTRACE_ATTACH, atoi(argument), 0, 0);
    if (!strcmp(name, "mount")) return mount("tmpfs", "/tmp", "tmpfs", 0, 0);
    if (!strcmp(name, "remount")) return mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0);
    if (!strcmp(name, "umount")) return umount2(argument, MNT_DETACH);
    if (!strcmp(name, "fsopen")) return syscall(430, "tmpfs", 0);
    if (!strcmp(name, "unshare-user")) return unshare(CLONE_NEWUSER);
    if (!strcmp(name, "clone-user")) {
        long child = syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
        if (child == 0) _exit(0);
        return child;
    }
    if (!strcmp(name, "chroot")) return chroot("/tmp");
    if (!strcmp(name, "raw-socket")) return socket(AF_INET, SOCK_RAW, 1);
    if (!strcmp(name, "packet-socket")) return socket(AF_PACKET, SOCK_RAW, 0);
    if (!strcmp(name, "disk-node")) return mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0));
    if (!strcmp(name, "gpu-node")) return mknod("/tmp/nvidia1", S_IFCHR | 0666, makedev(195, 1));
    if (!strcmp(name, "become-root")) return setuid(0);
    if (!strcmp(name, "keyring")) return syscall(SYS_keyctl, 0, -3, 1);
    if (!strcmp(name, "bpf")) return syscall(SYS_bpf, 0, 0, 0);
    if (!strcmp(name, "hostname")) return sethostname("mallory", 7);
    if (!strcmp(name, "reboot")) return syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0); /* CAD off: harmless */
    errno = EINVAL;
    perror(name);
    exit(2);
}

int main(int count, char **words) {
    if (count < 2 || attempt(words[1], count > 2 ? words[2] : "") < 0) {
        printf("%s\n", strerror(errno));
        return 1;
    }
    printf("done\n");
    return 0;
}
