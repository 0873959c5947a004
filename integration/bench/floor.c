// The floor of a comparison: what every runtime must at least do, and nothing else. Checks no error it can go on after.
//
// floor ROOTFS PROGRAM [CGROUP.PROCS]...: clones into six namespaces, joins the cgroups, mounts proc, pivots and executes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(long answer, const char *what) {
  if (answer >= 0) return;
  perror(what);
  _exit(1);
}

int main(int argc, char **argv) {
  int joined[2];
  must(pipe2(joined, O_CLOEXEC), "pipe2");
  int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD;
  pid_t child = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
  must(child, "clone");
  if (child == 0) {
    char go;
    close(joined[1]);
    if (argc > 3 && read(joined[0], &go, 1) != 0) _exit(1);
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
    must(mount(argv[1], argv[1], NULL, MS_BIND | MS_REC, NULL), "bind the root");
    must(chdir(argv[1]), "chdir");
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount proc");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "unmount the old root");
    must(execl(argv[2], argv[2], NULL), "execute");
  }
  for (int i = 3; i < argc; i++) {
    int fd = open(argv[i], O_WRONLY | O_CLOEXEC);
    must(fd, argv[i]);
    must(dprintf(fd, "%d", child), argv[i]);
    close(fd);
  }
  close(joined[1]);
  int status;
  must(waitpid(child, &status, 0), "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
