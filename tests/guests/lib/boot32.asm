; Entry of every 32-bit guest: Multiboot leaves it in flat 32-bit mode. A GDT, an IDT of 256 stubs, guest_main(); and how
; programs are entered and left (cpu.hpp). Paging stays off.
bits 32
MAGIC equ 0x1badb002
FLAGS equ 3

section .multiboot
align 4
dd MAGIC, FLAGS, -(MAGIC + FLAGS)

section .text
global start
extern run_guest
start:
        mov esp, stack_top
        push ebx ; arguments of run_guest()
        push eax
        lgdt [gdtr]
        jmp 8:.flat
.flat:  mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        xor eax, eax
        mov fs, ax
        mov gs, ax
        mov eax, stubs
        mov edi, idt
        mov ecx, 256
.gate:  mov [edi], ax
        mov word [edi + 2], 8
        mov word [edi + 4], 0x8e00
        ror eax, 16
        mov [edi + 6], ax
        ror eax, 16
        add edi, 8
        add eax, 16
        loop .gate
        lidt [idtr]
        call run_guest
.dead:  cli
        hlt
        jmp .dead

; One stub of 16 bytes a vector: [error code,] vector -> every.
align 16
global stubs
stubs:
%assign v 0
%rep 256
%if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
        push dword 0
%endif
        push dword v
        jmp near every
        align 16
%assign v v + 1
%endrep

extern on_vector
every:  pushad
        push ds
        push es
        push fs
        push gs
        mov eax, 16
        mov ds, ax
        mov es, ax
        mov eax, esp
        cld
        push eax
        call on_vector
        add esp, 4
        pop gs
        pop fs
        pop es
        pop ds
        popad
        add esp, 8
        iretd

; enter_state(State*): ring 0 programs have their own SS:ESP, and the IRET frame lies there.
global enter_state, leave_state, entering_iret
enter_state:
        push ebx
        push ebp
        push esi
        push edi
        mov [saved_esp], esp
        mov eax, [esp + 20]
        test dword [eax + 9 * 4], 1 << 17 ; VM
        jz .protected
        push dword [eax + 15 * 4] ; GS
        push dword [eax + 14 * 4]
        push dword [eax + 12 * 4]
        push dword [eax + 13 * 4] ; ES
        jmp .outer
.protected:
        mov ds, [cs:eax + 12 * 4]
        mov es, [cs:eax + 13 * 4]
        mov fs, [cs:eax + 14 * 4]
        mov gs, [cs:eax + 15 * 4]
        test dword [cs:eax + 10 * 4], 3
        jz .same
.outer: push dword [cs:eax + 11 * 4]
        push dword [cs:eax + 4 * 4]
        jmp .frame
.same:  mov ss, [cs:eax + 11 * 4]
        mov esp, [cs:eax + 4 * 4]
.frame: push dword [cs:eax + 9 * 4]
        push dword [cs:eax + 10 * 4]
        push dword [cs:eax + 8 * 4]
        mov ecx, [cs:eax + 1 * 4]
        mov edx, [cs:eax + 2 * 4]
        mov ebx, [cs:eax + 3 * 4]
        mov ebp, [cs:eax + 5 * 4]
        mov esi, [cs:eax + 6 * 4]
        mov edi, [cs:eax + 7 * 4]
        mov eax, [cs:eax]
entering_iret:
        iretd

leave_state:
        mov ecx, 16
        mov ss, cx
        mov ds, cx
        mov es, cx
        mov esp, [saved_esp]
        push dword 2
        push dword 8
        push dword .here
        iretd
.here:  xor ecx, ecx
        mov fs, cx
        mov gs, cx
        pop edi
        pop esi
        pop ebp
        pop ebx
        ret

section .data
align 8
global gdt
gdt:    dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
        times 61 dq 0
gdtr:   dw 511
        dd gdt
idtr:   dw 2047
        dd idt

section .bss
alignb 4096
global idt
idt:    resb 4096
saved_esp: resd 1
alignb 16
        resb 8192
global stack0_top
stack0_top:
        resb 32768
stack_top:
