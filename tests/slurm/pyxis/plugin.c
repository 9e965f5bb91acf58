/* What Slurm calls, in this order: init in srun and on each node, user_init once per node before the tasks are forked,
 * task_init in each of them right before its command. */

#include "pyxis.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis, 1);

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static struct container container;
static char folder[PATH_MAX] = "/run/pyxis"; /* of the node, for what is kept between steps */

static const char *batch_script(spank_t spank);
static void set_image_environment(spank_t spank);
static void set_unless_listed(spank_t spank, const char *name, const char *value);
static int enter_workdir(spank_t spank);

/* In plugstack.conf: `required pyxis.so runtime_path=/folder`; each node has a folder of its own in it. */
int slurm_spank_init(spank_t spank, int argc, char **argv)
{
    static const char key[] = "runtime_path=";
    char host[HOST_NAME_MAX + 1] = "";
    gethostname(host, sizeof host - 1);
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], key, strlen(key)) == 0)
            snprintf(folder, sizeof folder, "%s/%s", argv[i] + strlen(key), host);
    }
    switch (spank_context()) {
    case S_CTX_LOCAL:
    case S_CTX_REMOTE:
    case S_CTX_ALLOCATOR: return register_options(spank, &container);
    default: return 0;
    }
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char **argv)
{
    (void)spank, (void)argc, (void)argv;
    const char *flag = pointless_flag(&container);
    if (flag != NULL && spank_context() == S_CTX_LOCAL)
        slurm_info("pyxis: ignoring %s because neither --container-image nor --container-name is set", flag);
    return 0;
}

/* A failure here ends the step with exit status 0, so that it is kept for task_init. */
int slurm_spank_user_init(spank_t spank, int argc, char **argv)
{
    (void)argc, (void)argv;
    char home[PATH_MAX];
    if (!in_container(&container))
        return 0;
    bool known = spank_getenv(spank, "HOME", home, sizeof home) == ESPANK_SUCCESS;
    make_root(&container, folder, batch_script(spank), known ? home : NULL);
    return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!in_container(&container))
        return 0;
    if (failure() == NULL && chroot(root_path()) != 0)
        fail("no chroot: %s", strerror(errno));
    if (failure() == NULL && enter_workdir(spank) == 0)
        set_image_environment(spank);
    if (failure() == NULL)
        return 0;
    slurm_error("pyxis: %s", failure());
    return -1;
}

/* The file of the batch script, if this is the step that runs it: it lies in a folder of slurmd. */
static const char *batch_script(spank_t spank)
{
    static const char name[] = "/slurm_script";
    int count = 0;
    char **words = NULL;
    if (spank_get_item(spank, S_JOB_ARGV, &count, &words) != ESPANK_SUCCESS || count == 0)
        return NULL;
    size_t length = strlen(words[0]), tail = strlen(name);
    return length > tail && strcmp(words[0] + length - tail, name) == 0 ? words[0] : NULL;
}

/* PATH, and what /etc/environment says (NAME=VALUE, with or without quotes); called inside. */
static void set_image_environment(spank_t spank)
{
    char line[2 * PATH_MAX];
    set_unless_listed(spank, "PATH", DEFAULT_PATH);
    FILE *file = fopen("/etc/environment", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *value = strchr(line, '=');
        if (line[0] == '#' || value == NULL)
            continue;
        *value++ = '\0';
        value += strspn(value, "\"'");
        value[strcspn(value, "\"'\n")] = '\0';
        set_unless_listed(spank, line, value);
    }
    if (file != NULL)
        fclose(file);
}

static void set_unless_listed(spank_t spank, const char *name, const char *value)
{
    if (!is_listed(container.env, name))
        spank_setenv(spank, name, value, 1);
}

/* --container-workdir, else the home folder if the image has it, else the root; called inside. */
static int enter_workdir(spank_t spank)
{
    char home[PATH_MAX];
    if (container.workdir != NULL) {
        if (chdir(container.workdir) == 0)
            return 0;
        return fail("couldn't chdir to %s: %s", container.workdir, strerror(errno));
    }
    if (spank_getenv(spank, "HOME", home, sizeof home) == ESPANK_SUCCESS && chdir(home) == 0)
        return 0;
    return chdir("/") == 0 ? 0 : fail("couldn't chdir to /: %s", strerror(errno));
}
