/* The --container-* flags. */

#include "pyxis.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum flag { IMAGE, NAME, MOUNTS, WORKDIR, ENV, SAVE, WRITABLE, READONLY, HOME, NO_HOME, WITHOUT_EFFECT };

static struct container *typed;
static char reason[2 * PATH_MAX];

static int take(int flag, const char *value, int remote);

static struct spank_option options[] = {
    {"container-image", "PATH", "[pyxis] folder or squashfs file of the container's system", 1, IMAGE, take},
    {"container-name", "NAME", "[pyxis] keep the container under this name, or use the one that has it", 1, NAME, take},
    {"container-mounts", "SRC:DST[:ro],...", "[pyxis] what of the node is seen in the container", 1, MOUNTS, take},
    {"container-workdir", "PATH", "[pyxis] where the command starts", 1, WORKDIR, take},
    {"container-env", "NAME,...", "[pyxis] variables whose value in the job wins over the image's", 1, ENV, take},
    {"container-save", "PATH", "[pyxis] refused", 1, SAVE, take},
    {"container-writable", NULL, "[pyxis] let the container write to its system", 0, WRITABLE, take},
    {"container-readonly", NULL, "[pyxis] do not (the default)", 0, READONLY, take},
    {"container-mount-home", NULL, "[pyxis] mount the home folder", 0, HOME, take},
    {"no-container-mount-home", NULL, "[pyxis] do not (the default)", 0, NO_HOME, take},
    {"container-remap-root", NULL, "[pyxis] no effect", 0, WITHOUT_EFFECT, take},
    {"no-container-remap-root", NULL, "[pyxis] no effect", 0, WITHOUT_EFFECT, take},
    {"container-entrypoint", NULL, "[pyxis] no effect", 0, WITHOUT_EFFECT, take},
    {"no-container-entrypoint", NULL, "[pyxis] no effect", 0, WITHOUT_EFFECT, take},
    SPANK_OPTIONS_TABLE_END,
};

int register_options(spank_t spank, struct container *container)
{
    typed = container;
    for (struct spank_option *option = options; option->name != NULL; option++) {
        if (spank_option_register(spank, option) != ESPANK_SUCCESS)
            return -1;
    }
    return 0;
}

bool in_container(const struct container *container)
{
    return container->image != NULL || container->name != NULL;
}

const char *pointless_flag(const struct container *container)
{
    if (in_container(container))
        return NULL;
    if (container->mounts != NULL)
        return "--container-mounts";
    if (container->workdir != NULL)
        return "--container-workdir";
    return container->env != NULL ? "--container-env" : NULL;
}

int next_mount(const char **list, struct mount_option *mount)
{
    if (*list == NULL || **list == '\0')
        return 0;
    size_t length = strcspn(*list, ",");
    char *text = strndup(*list, length), *rest = text;
    *list += length + ((*list)[length] == ',');

    const char *source = strsep(&rest, ":");
    const char *target = rest != NULL ? strsep(&rest, ":") : source;
    const char *flags = rest != NULL ? rest : "rw";
    int answer = 1;
    if (source[0] != '/' || target[0] != '/')
        answer = fail("--container-mounts: %s: paths must be absolute", text);
    else if (strcmp(flags, "ro") != 0 && strcmp(flags, "rw") != 0)
        answer = fail("--container-mounts: unknown flag: %s", flags);
    snprintf(mount->source, sizeof mount->source, "%s", source);
    snprintf(mount->target, sizeof mount->target, "%s", target);
    mount->read_only = strcmp(flags, "ro") == 0;
    free(text);
    return answer;
}

bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    while (list != NULL && *list != '\0') {
        size_t here = strcspn(list, ",");
        if (here == length && strncmp(list, name, length) == 0)
            return true;
        list += here + (list[here] == ',');
    }
    return false;
}

int fail(const char *format, ...)
{
    if (reason[0] == '\0') {
        va_list values;
        va_start(values, format);
        vsnprintf(reason, sizeof reason, format, values);
        va_end(values);
    }
    return -1;
}

const char *failure(void)
{
    return reason[0] != '\0' ? reason : NULL;
}

/* Called for each flag, in the order of the command line: the last one wins. Lives as long as the process. */
static int take(int flag, const char *value, int remote)
{
    (void)remote;
    switch ((enum flag)flag) {
    case IMAGE: typed->image = strdup(value); break;
    case NAME: typed->name = strdup(value); break;
    case MOUNTS: typed->mounts = strdup(value); break;
    case WORKDIR: typed->workdir = strdup(value); break;
    case ENV: typed->env = strdup(value); break;
    case SAVE: typed->save = strdup(value); break;
    case WRITABLE: typed->writable = true; break;
    case READONLY: typed->writable = false; break;
    case HOME: typed->mount_home = true; break;
    case NO_HOME: typed->mount_home = false; break;
    case WITHOUT_EFFECT: break;
    }
    return 0;
}
