/*
 * A PAM module that asks the lab's verifier, so that PostgreSQL's own "pam" method can be tried with RDS tokens.
 * Its one argument is the path of the verifier's unix socket. It sends USER NUL PASSWORD NUL and lets the user in
 * when the answer is '1'. pam_exec can't do this: it cuts passwords off after 511 bytes.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <security/pam_ext.h>
#include <security/pam_modules.h>

static int send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        bytes += sent;
        length -= (size_t) sent;
    }
    return 0;
}

/* Whether the verifier behind this socket lets the user in. */
static int is_let_in(const char *path, const char *user, const char *password)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer = '0';
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return 0;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0
        || send_all(fd, user, strlen(user) + 1) != 0
        || send_all(fd, password, strlen(password) + 1) != 0
        || recv(fd, &answer, 1, MSG_WAITALL) != 1)
        answer = '0';
    close(fd);
    return answer == '1';
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    const char *user = NULL;
    const char *password = NULL;

    (void) flags;
    if (argc != 1 || pam_get_user(pamh, &user, NULL) != PAM_SUCCESS || user == NULL)
        return PAM_AUTH_ERR;
    if (pam_get_authtok(pamh, PAM_AUTHTOK, &password, NULL) != PAM_SUCCESS || password == NULL)
        return PAM_AUTH_ERR;
    return is_let_in(argv[0], user, password) ? PAM_SUCCESS : PAM_AUTH_ERR;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void) pamh, (void) flags, (void) argc, (void) argv;
    return PAM_SUCCESS;
}

int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void) pamh, (void) flags, (void) argc, (void) argv;
    return PAM_SUCCESS;
}
