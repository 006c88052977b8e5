/* A user agent of sofia-sip's nua: takes every call and keeps it, or makes one. It prints its events and logs all messages.
 * sofia -i <own IP> [-P <port>] -t <session timer> -m <min-SE> [-u: refreshes by UPDATE] [-o: the other end has to refresh]
 *       [-c <URI to call> [-p <proxy's URI>] [-h <seconds after which it hangs up>]] */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct agent agent_t;
#define NUA_MAGIC_T agent_t
#define NUA_HMAGIC_T void
#define SU_TIMER_ARG_T struct nua_handle_s

#include <sofia-sip/nua.h>
#include <sofia-sip/sip_status.h>
#include <sofia-sip/soa_tag.h>
#include <sofia-sip/su.h>
#include <sofia-sip/tport_tag.h>

struct agent {
    su_root_t *root;
    nua_t *nua;
};

static void on_event(nua_event_t event, int status, char const *phrase, nua_t *nua, agent_t *agent,
                     nua_handle_t *handle, void *call, sip_t const *sip, tagi_t tags[])
{
    printf("%s %d %s\n", nua_event_name(event), status, phrase);
    fflush(stdout);
    if (event == nua_i_invite && status < 200 && sip && sip->sip_to && !sip->sip_to->a_tag)
        nua_respond(handle, SIP_200_OK, TAG_END());
}

static void hang_up(su_root_magic_t *root, su_timer_t *timer, nua_handle_t *handle)
{
    nua_bye(handle, TAG_END());
}

int main(int count, char *args[])
{
    agent_t agent = { 0 };
    char const *own = "127.0.0.1", *callee = NULL, *proxy = NULL;
    int port = 5060, timer = 0, min_se = 0, update = 0, remote = 0, hold = 0, option;
    char url[64], sdp[256];

    while ((option = getopt(count, args, "i:P:t:m:uoc:p:h:")) != -1) {
        switch (option) {
        case 'i': own = optarg; break;
        case 'P': port = atoi(optarg); break;
        case 't': timer = atoi(optarg); break;
        case 'm': min_se = atoi(optarg); break;
        case 'u': update = 1; break;
        case 'o': remote = 1; break;
        case 'c': callee = optarg; break;
        case 'p': proxy = optarg; break;
        case 'h': hold = atoi(optarg); break;
        default: return 2;
        }
    }
    su_init();
    agent.root = su_root_create(&agent);
    snprintf(url, sizeof url, strchr(own, ':') ? "sip:stack@[%s]:%d;transport=udp" : "sip:stack@%s:%d;transport=udp", own, port);
    snprintf(sdp, sizeof sdp, "v=0\r\nc=IN IP%c %s\r\nm=audio 41000 RTP/AVP 0\r\n", strchr(own, ':') ? '6' : '4', own);
    agent.nua = nua_create(agent.root, on_event, &agent, NUTAG_URL(url), SOATAG_USER_SDP_STR(sdp),
                           NUTAG_SESSION_TIMER(timer), NUTAG_MIN_SE(min_se), NUTAG_UPDATE_REFRESH(update),
                           TAG_IF(remote, NUTAG_SESSION_REFRESHER(nua_remote_refresher)),
                           TAG_IF(proxy, NUTAG_PROXY(proxy)), NUTAG_AUTOALERT(0), TPTAG_LOG(1), TAG_END());
    if (!agent.nua)
        return 1;
    if (callee) {
        nua_handle_t *handle = nua_handle(agent.nua, NULL, NUTAG_URL(callee), SIPTAG_TO_STR(callee), TAG_END());
        nua_invite(handle, TAG_END());
        if (hold)
            su_timer_set_interval(su_timer_create(su_root_task(agent.root), 0), hang_up, handle, hold * 1000L);
    }
    su_root_run(agent.root);
    return 0;
}
