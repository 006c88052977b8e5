/* A user agent of sofia-sip's nua: takes every call and keeps it, or makes one.
 * sofia <own IP> <session timer> <min-SE> <1: refreshes by UPDATE> [<URI to call>] */

#include <stdio.h>
#include <stdlib.h>

typedef struct agent agent_t;
#define NUA_MAGIC_T agent_t
#define NUA_HMAGIC_T void

#include <sofia-sip/nua.h>
#include <sofia-sip/sip_status.h>
#include <sofia-sip/soa_tag.h>
#include <sofia-sip/su.h>

struct agent {
    su_root_t *root;
    nua_t *nua;
};

static void on_event(nua_event_t event, int status, char const *phrase, nua_t *nua, agent_t *agent,
                     nua_handle_t *handle, void *call, sip_t const *sip, tagi_t tags[])
{
    if (event == nua_i_invite && status < 200 && sip && sip->sip_to && !sip->sip_to->a_tag)
        nua_respond(handle, SIP_200_OK, TAG_END());
}

int main(int count, char *args[])
{
    agent_t agent = { 0 };
    char url[64], sdp[256];
    if (count < 5)
        return 2;
    su_init();
    agent.root = su_root_create(&agent);
    snprintf(url, sizeof url, "sip:stack@%s:5060;transport=udp", args[1]);
    snprintf(sdp, sizeof sdp, "v=0\r\nc=IN IP4 %s\r\nm=audio 41000 RTP/AVP 0\r\n", args[1]);
    agent.nua = nua_create(agent.root, on_event, &agent, NUTAG_URL(url), SOATAG_USER_SDP_STR(sdp),
                           NUTAG_SESSION_TIMER(atoi(args[2])), NUTAG_MIN_SE(atoi(args[3])),
                           NUTAG_UPDATE_REFRESH(atoi(args[4])), NUTAG_AUTOALERT(0), TAG_END());
    if (!agent.nua)
        return 1;
    if (count > 5) {
        nua_handle_t *handle = nua_handle(agent.nua, NULL, NUTAG_URL(args[5]), SIPTAG_TO_STR(args[5]), TAG_END());
        nua_invite(handle, TAG_END());
    }
    su_root_run(agent.root);
    return 0;
}
